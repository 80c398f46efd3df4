"""Puts the simulator together: API, pages, control endpoints, and what runs beside them."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from simulators import Options
from simulators.stripe import board, control, pages, schedule
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
        world.wake = courier.wake
        tasks = [
            asyncio.create_task(courier.run(), name="webhook delivery"),
            asyncio.create_task(schedule.keep_time(world), name="the clock"),
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
            Route("/v1/{path:path}", _api(Api(world, key)), methods=EVERY_METHOD),
            *control.Buttons(world).routes(),
            *pages.routes(world),
            *board.routes(world),
        ],
        lifespan=lifespan,
        exception_handlers={control.Refused: control.refused, Exception: _broken},
    )


def _ended(task: asyncio.Task[None]) -> None:
    """Say aloud that time or deliveries stand still; neither task ends while all is well."""
    log.critical("%s ended", task.get_name(), exc_info=task.exception())


def _api(api: Api) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        body = (await request.body()).decode("utf-8", "replace")
        call = Call(
            method=request.method,
            path=request.url.path,
            fields="&".join(part for part in (request.url.query, body) if part),
            headers=dict(request.headers),
        )
        answered = api.handle(call)
        return Response(
            answered.body,
            status_code=answered.status,
            headers=answered.headers,
            media_type="application/json",
        )

    return answer


async def _broken(_request: Request, _error: Exception) -> JSONResponse:
    """Answer in Stripe's form when the simulator itself is wrong; the traceback is logged."""
    message = "The simulator of Stripe made a mistake; its log has the traceback."
    return JSONResponse({"error": {"message": message, "type": "api_error"}}, status_code=500)
