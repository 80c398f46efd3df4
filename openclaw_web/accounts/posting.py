"""What a plain HTML form posts: its fields, once it is sure that a page of ours sent them."""

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, HTTPException, Request, status

from openclaw_web.accounts import origins

LARGEST_FORM_BYTES = 8 * 1024
MOST_FIELDS = 20
FORM_TYPE = "application/x-www-form-urlencoded"
NO_STORE = {"Cache-Control": "no-store"}


async def posted_fields(request: Request) -> Mapping[str, str]:
    """Read a small form that a page of ours posted.

    Raises:
        HTTPException: 400 too many fields, 403 foreign page, 413 too large, 415 no HTML form.
    """
    if not origins.is_own_post(request.headers):
        raise _refusal(status.HTTP_403_FORBIDDEN, "This form was sent from another site.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FORM_BYTES:
            raise _refusal(status.HTTP_413_CONTENT_TOO_LARGE, "This form is too large.")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and kind != FORM_TYPE:
        raise _refusal(status.HTTP_415_UNSUPPORTED_MEDIA_TYPE, "Send an HTML form.")
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=MOST_FIELDS))
    except ValueError as error:
        raise _refusal(status.HTTP_400_BAD_REQUEST, "This form has too many fields.") from error


def _refusal(status_code: int, sentence: str) -> HTTPException:
    return HTTPException(status_code, sentence, headers=NO_STORE)


Fields = Annotated[Mapping[str, str], Depends(posted_fields)]
