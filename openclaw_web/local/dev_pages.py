"""The simulators' own pages under /dev: the phone, the inbox, Stripe, the cluster, the model.

Only a local stack includes these routes, and they answer to this machine only. What we add is the
simulators' token; what we keep from them is our visitor's cookie.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

import anyio
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.datastructures import Headers
from starlette.responses import StreamingResponse

from openclaw_web.accounts.origins import is_own_post
from openclaw_web.core.errors import VendorError
from openclaw_web.core.settings import LOOPBACK_NAMES, settings
from openclaw_web.integrations import loopback
from openclaw_web.local import clock_page, clocks
from openclaw_web.local.dev_services import DevServices, dev_services

MAX_BODY_BYTES = 10 * 1024**2
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
NOT_FORWARDED = frozenset(
    {
        "connection",
        "content-length",
        "cookie",
        "date",
        "host",
        "keep-alive",
        "server",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-simulator-token",
    }
)
INDEX_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'"
)
CARDS = {
    "phone": ("Your phone", "Telegram. Make a bot with BotFather, then talk to your box."),
    "inbox": ("Inbox", "Every mail the product sends: sign-in codes, receipts, warnings."),
    "stripe": ("Stripe", "Customers, payments, renewals. Make a card fail, move the clock."),
    "cluster": ("Kubernetes", "The namespaces and pods of all boxes, and what they log."),
    "kimi": ("Kimi", "What the boxes asked the model, and what it answered."),
}


class _Process:
    client: Any = None


@asynccontextmanager
async def _lifespan(_app: Any) -> AsyncGenerator[None]:
    async with loopback.client() as _Process.client:
        yield
    _Process.client = None


router = APIRouter(prefix="/dev", lifespan=_lifespan, include_in_schema=False)


@router.get("")
@router.get("/")
async def index(request: Request) -> Response:
    """List the simulators of this stack."""
    if (refused := _refusal(request)) is not None:
        return refused
    known = dev_services(settings()).addresses
    page = Template((Path(__file__).parent / "dev_pages.html").read_text(encoding="utf-8"))
    cards = "\n".join(
        f'<a class="card" href="/dev/{name}/"><h2>{title}</h2><p>{what}</p></a>'
        for name, (title, what) in CARDS.items()
        if name in known
    )
    clock = clock_page.FORM if "stripe" in known else ""
    return HTMLResponse(
        page.substitute(cards=cards, clock=clock),
        headers={"content-security-policy": INDEX_POLICY},
    )


@router.post("/clock")
async def move_clock(request: Request) -> Response:
    """Move the clock as a form of the list says, and show each stop as it is reached."""
    if (refused := _refusal(request)) is not None:
        return refused
    if not is_own_post(request.headers):
        return PlainTextResponse("Move the clock from this site's own page.", status_code=403)
    by = str((await request.form()).get("by", ""))
    if by not in clock_page.SPANS:
        return PlainTextResponse("The clock cannot be moved by that.", status_code=400)
    try:
        clocks.refuse_real_time(settings())
    except clocks.ClockError as error:
        return PlainTextResponse(str(error), status_code=409)
    return StreamingResponse(
        clock_page.stops(settings(), by),
        media_type="text/html; charset=utf-8",
        headers={"content-security-policy": INDEX_POLICY, "x-accel-buffering": "no"},
    )


@router.api_route("/{name}", methods=METHODS)
async def without_slash(request: Request, name: str) -> Response:
    """Send a browser to the folder, so that the page's relative links lead somewhere."""
    if request.method == "GET" and name in CARDS and _refusal(request) is None:
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"/dev/{name}/{query}", status_code=307)
    return await forward(request, name, "")


@router.api_route("/{name}/{path:path}", methods=METHODS)
async def forward(request: Request, name: str, path: str) -> Response:
    """Pass a request on to a simulator, and its answer back while it streams."""
    if (refused := _refusal(request)) is not None:
        return refused
    known = dev_services(settings())
    if name not in known.addresses:
        return PlainTextResponse("There is no such simulator in this stack.", status_code=404)
    body = await request.body()
    if len(body) > MAX_BODY_BYTES:
        return PlainTextResponse("That is too much for a development page.", status_code=413)
    query = f"?{request.url.query}" if request.url.query else ""
    try:
        return await _answer(request, known, f"{known.addresses[name]}/{path}{query}", body)
    except VendorError as error:
        return PlainTextResponse(f"{error} See `python -m openclaw_web status`.\n", status_code=502)


async def _answer(request: Request, known: DevServices, url: str, body: bytes) -> Response:
    headers = _passed_on(request.headers.items())
    async with AsyncExitStack() as opening:
        answer = await opening.enter_async_context(
            loopback.forward(
                _Process.client,
                request.method,
                url,
                headers=[*headers, (loopback.TOKEN_HEADER, known.token)],
                body=body,
            )
        )
        kept_open = opening.pop_all()
    streamed = StreamingResponse(_stream(answer.body, kept_open), status_code=answer.status)
    streamed.raw_headers = Headers(
        raw=[
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in _passed_on(answer.headers)
        ]
    ).raw
    return streamed


async def _stream(body: AsyncIterator[bytes], opened: AsyncExitStack) -> AsyncIterator[bytes]:
    try:
        async for chunk in body:
            yield chunk
    finally:
        with anyio.CancelScope(shield=True):  # the browser left: still hang up at the simulator
            await opened.aclose()


def _passed_on(headers: Any) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() not in NOT_FORWARDED]


def _refusal(request: Request) -> Response | None:
    """Answer only a browser of this machine that knows us by a name of this machine."""
    client = request.client.host if request.client else ""
    host = urlsplit(f"//{request.headers.get('host', '')}").hostname
    if client in LOOPBACK_NAMES and host in LOOPBACK_NAMES:
        return None
    return PlainTextResponse("These pages answer to this machine only.", status_code=403)
