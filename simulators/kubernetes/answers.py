"""How answers look: an object, a table or only metadata, with warnings; refusals as a Status."""

import json
from http import HTTPStatus
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from simulators.kubernetes import event_forms, requests, resources, tables
from simulators.kubernetes.errors import ApiError
from simulators.kubernetes.objects import Object
from simulators.kubernetes.requests import Target

LONGEST_WARNINGS = 4096  # the real server cuts them to this many characters in all


def answer(content: Any, code: int = HTTPStatus.OK, warnings: list[str] | None = None) -> Response:
    made = Response(orjson.dumps(content), code, media_type="application/json")
    room = LONGEST_WARNINGS
    for warning in dict.fromkeys(warnings or ()):  # each is said once
        room -= len(warning)
        if room < 0:
            break
        made.headers.append("warning", f"299 - {json.dumps(warning)}")
    return made


def refusal(error: ApiError) -> Response:
    made = answer(error.status(), error.code)
    made.headers.update(error.headers)
    return made


def shaped(target: Target, one: Object) -> Object:
    """Return the object in the form of the group that was asked."""
    return event_forms.newer(one) if target.shown is resources.NEWER_EVENTS else one


def present(
    request: Request,
    target: Target,
    one: Object,
    code: int = HTTPStatus.OK,
    warnings: list[str] | None = None,
) -> Response:
    form = requests.form(request)
    if form.kind == "Table":
        metadata = {"resourceVersion": one["metadata"].get("resourceVersion", "")}
        made = tables.table(target.resource, [one], metadata, form.include)
        return answer(made, code, warnings)
    one = shaped(target, one)
    return answer(tables.partial(one) if form.kind == "Metadata" else one, code, warnings)


def listed(
    request: Request, target: Target, page: list[Object], metadata: dict[str, Any]
) -> Response:
    form = requests.form(request)
    if form.kind == "Table":
        return answer(tables.table(target.resource, page, metadata, form.include))
    if form.kind == "Metadata":
        kind = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
        items = [tables.partial(one) for one in page]
    else:
        kind = {"kind": f"{target.shown.kind}List", "apiVersion": target.shown.api_version}
        items = [shaped(target, one) for one in page]
    return answer({**kind, "metadata": metadata, "items": items})


def success(details: dict[str, Any]) -> dict[str, Any]:
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    return {**status, "details": details}
