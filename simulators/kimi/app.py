"""Everything the Kimi simulator serves: the model API, its control endpoints and a page."""

import json
import secrets
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from simulators.kimi.answers import AnswerError, Answers
from simulators.kimi.api import ModelApi
from simulators.kimi.store import REQUESTS_KEPT, Store

CONTENT_TYPES = frozenset({"application/json"})
VENDOR_PATHS = ("/v1", "/coding/v1")
REQUESTS_SHOWN = 100
POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


def build(state: Path, key: str) -> Starlette:
    store = Store(state)
    answers = Answers(store)
    api = ModelApi(store, answers, key)
    control = Control(store, answers)
    vendor = [
        route
        for prefix in VENDOR_PATHS
        for route in (
            Route(f"{prefix}/chat/completions", api.complete, methods=["POST"]),
            Route(f"{prefix}/messages", api.message, methods=["POST"]),
            Route(f"{prefix}/models", api.models),
            Route(f"{prefix}/{{rest:path}}", api.unknown, methods=["GET", "POST"]),
        )
    ]
    return Starlette(routes=[*vendor, *control.routes()])


class Control:
    """What tests ask of the simulator, and the page that shows what came."""

    def __init__(self, store: Store, answers: Answers) -> None:
        self._store = store
        self._answers = answers
        self._page = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")

    def routes(self) -> list[Route]:
        return [
            Route("/", self.page),
            Route("/_control/answers", self.queue, methods=["POST"]),
            Route("/_control/answers", self.clear_answers, methods=["DELETE"]),
            Route("/_control/requests", self.requests, methods=["GET"]),
            Route("/_control/requests", self.clear_requests, methods=["DELETE"]),
        ]

    async def page(self, _request: Request) -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        headers = {
            "content-security-policy": POLICY.format(nonce=nonce),
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
        }
        return HTMLResponse(self._page.replace("{{nonce}}", nonce), headers=headers)

    async def queue(self, request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            queued = self._answers.queue(body["answers"])
        except (ValueError, KeyError, TypeError):
            reason = 'send {"answers": [{…}, …]}'
            return JSONResponse({"error": reason}, status_code=400)
        except AnswerError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse({"queued": queued, "waiting": self._answers.waiting()})

    async def clear_answers(self, _request: Request) -> Response:
        self._answers.clear()
        return JSONResponse({})

    async def requests(self, request: Request) -> Response:
        """The count since the last clearing and the latest records, newest first; ?last=N."""
        last = request.query_params.get("last", "")
        limit = min(int(last), REQUESTS_KEPT) if last.isdigit() else REQUESTS_SHOWN
        body = {
            "count": self._store.count_requests(),
            "waiting_answers": self._answers.waiting(),
            "requests": self._store.last_requests(limit),
        }
        return JSONResponse(body)

    async def clear_requests(self, _request: Request) -> Response:
        self._store.clear_requests()
        return JSONResponse({})
