"""Puts the simulator together: API, pages, control endpoints, and what runs beside them."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from simulators import Options
from simulators.stripe import board, control, faults, pages, schedule
from simulators.stripe.api import Api, Call
from simulators.stripe.clock import Clock
from simulators.stripe.courier import Courier
from simulators.stripe.store import Store
from simulators.stripe.world import World

log = logging.getLogger(__name__)

FILE = "stripe.sqlite"
EVERY_METHOD = ["GET", "POST", "DELETE", "PUT", "PATCH"]


def build(chosen: Options, key: str) -> Starlette:
    """Return the app; its state is opened here and closed when the app ends."""
    store = Store(chosen.state / FILE, schedule.due_at)
    world = World(store=store, clock=Clock(store), public_url=chosen.public_url)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        courier = Courier(world)
        traveller = schedule.Traveller(world)
        world.wake, world.hurry = courier.wake, traveller.hurry
        tasks = [
            asyncio.create_task(courier.run(), name="webhook delivery"),
            asyncio.create_task(schedule.keep_time(world), name="the clock"),
            asyncio.create_task(traveller.run(), name="the test clocks"),
        ]
        for task in tasks:
            task.add_done_callback(_ended)
        try:
            yield
        finally:
            for task in tasks:
                task.remove_done_callback(_ended)
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            store.close()

    return Starlette(
        routes=[
            Route("/v1/{path:path}", _api(world, Api(world, key)), methods=EVERY_METHOD),
            *control.Buttons(world).routes(),
            *pages.routes(world),
            *board.routes(world),
        ],
        lifespan=lifespan,
        exception_handlers={control.Refused: control.refused, Exception: _broken},
    )


def _ended(task: asyncio.Task[None]) -> None:
    """Say aloud that time or deliveries stand still; no task ends while all is well."""
    log.critical("%s ended", task.get_name(), exc_info=task.exception())


def _api(world: World, api: Api) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        body = (await request.body()).decode("utf-8", "replace")
        call = Call(
            method=request.method,
            path=request.url.path,
            fields="&".join(part for part in (request.url.query, body) if part),
            headers=dict(request.headers),
        )
        fault = faults.take(world, call.method, call.path)
        if fault is None:
            return _response(api, call, None)
        if fault.seconds:
            await asyncio.sleep(fault.seconds)
        if not fault.hangs_up:
            return _response(api, call, fault)
        if fault.happens_after:
            api.handle(call)
        return _NoAnswer()

    return answer


def _response(api: Api, call: Call, fault: faults.Fault | None) -> Response:
    answered = api.handle(call, fault)
    return Response(
        answered.body,
        status_code=answered.status,
        headers=answered.headers,
        media_type="application/json",
    )


class _NoAnswer(Response):
    """Promises a body and leaves before it comes, so that the caller never learns what happened."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        headers = [(b"content-length", b"2"), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _broken(_request: Request, _error: Exception) -> JSONResponse:
    """Answer in Stripe's form when the simulator itself is wrong; the traceback is logged."""
    message = "The simulator of Stripe made a mistake; its log has the traceback."
    return JSONResponse({"error": {"message": message, "type": "api_error"}}, status_code=500)
