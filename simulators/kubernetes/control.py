"""What tests ask of the cluster that Kubernetes does not offer: faults, settings, questions.

All of it lies below `/_control` and needs the simulator's token.
"""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulators.kubernetes import network, resources
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.faults import Faults
from simulators.kubernetes.identity import DEFAULT_TOKEN_SECONDS, Identities
from simulators.kubernetes.knobs import Knobs, RefusedError
from simulators.kubernetes.paging import Pages
from simulators.kubernetes.records import STATES, Records

Endpoint = Callable[[Request], Awaitable[Any]]


class Control:
    def __init__(
        self,
        cluster: Cluster,
        *,
        faults: Faults,
        knobs: Knobs,
        pages: Pages,
        identities: Identities,
        records: Records,
        look_again: Callable[[], None],
    ) -> None:
        self._cluster = cluster
        self._faults = faults
        self._knobs = knobs
        self._pages = pages
        self._identities = identities
        self._records = records
        self._look_again = look_again

    def routes(self) -> list[Route]:
        offered: tuple[tuple[str, str, Endpoint], ...] = (
            ("GET", "faults", self.faults),
            ("POST", "faults", self.add_fault),
            ("DELETE", "faults", self.clear_faults),
            ("GET", "settings", self.settings),
            ("PATCH", "settings", self.change_settings),
            ("POST", "compact", self.compact),
            ("POST", "cut-watches", self.cut_watches),
            ("POST", "tokens", self.token),
            ("POST", "reach", self.reach),
            ("POST", "records", self.set_records),
        )
        return [
            Route(f"/_control/{name}", _guarded(endpoint), methods=[method])
            for method, name, endpoint in offered
        ]

    async def faults(self, _: Request) -> Any:
        return self._faults.listed()

    async def add_fault(self, request: Request) -> Any:
        """Let calls fail; see `faults.Fault` for the fields."""
        return asdict(self._faults.add(await _json(request)))

    async def clear_faults(self, _: Request) -> Any:
        self._faults.clear()
        return {}

    async def settings(self, _: Request) -> Any:
        return asdict(self._knobs.now)

    async def change_settings(self, request: Request) -> Any:
        """Change settings by name; see `knobs.Values`."""
        changed = self._knobs.change(await _json(request))
        self._look_again()
        return asdict(changed)

    async def compact(self, _: Request) -> Any:
        """Forget the history: watches and lists from before get 410 Gone."""
        self._cluster.store.forget_history()
        self._pages.forget()
        return {"resourceVersion": str(self._cluster.store.revision)}

    async def cut_watches(self, _: Request) -> Any:
        """End every watch that is open, as a restart of a real API server does."""
        self._cluster.store.cut_watches()
        return {}

    async def token(self, request: Request) -> Any:
        """Make a token for a user: {"user", "groups"?, "seconds"?}."""
        body = await _json(request)
        name, groups = body.get("user"), body.get("groups", [])
        seconds = body.get("seconds", DEFAULT_TOKEN_SECONDS)
        if not isinstance(name, str) or not name or not isinstance(groups, list):
            raise RefusedError("user is a name, groups a list of names")
        if not isinstance(seconds, int):
            raise RefusedError("seconds is a whole number")
        return {"token": self._identities.issue_for_user(name, tuple(map(str, groups)), seconds)}

    async def reach(self, request: Request) -> Any:
        """Say whether the network policies let somebody reach somebody.

        {"from": {"namespace", "pod"} or {"ip"}, "to": the same, "port", "protocol"?}
        """
        body = await _json(request)
        asked = network.Question.read(body)
        return network.answer(self._cluster.store, asked)

    async def set_records(self, request: Request) -> Any:
        """Change the state of recorded pods: {"namespace", "pod"?, "state"}."""
        body = await _json(request)
        if body.get("state") not in STATES:
            raise RefusedError(f"state is one of {', '.join(STATES)}")
        namespace, name = body.get("namespace", ""), body.get("pod", "")
        pods = self._cluster.store.objects(resources.PODS, namespace)
        chosen = [one for one in pods if not name or one["metadata"]["name"] == name]
        changed = [one for one in chosen if self._records.put(one, body["state"])]
        if not changed:
            raise RefusedError("there is no such recorded pod")
        return {"changed": len(changed)}


def _guarded(endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def guarded(request: Request) -> Response:
        try:
            return JSONResponse(await endpoint(request))
        except RefusedError as error:
            return JSONResponse({"error": str(error)}, status_code=400)

    return guarded


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        raise RefusedError("the body is not JSON") from None
    if not isinstance(body, dict):
        raise RefusedError("the body is not a JSON object")
    return body
