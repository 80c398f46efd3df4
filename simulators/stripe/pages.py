"""The addresses that a customer's browser opens: checkout, portal, invoice, and 3-D Secure."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from simulators.stripe import checkout_page, clocks, forms, invoice_page, portal_page
from simulators.stripe.rendering import Fields
from simulators.stripe.world import World

Show = Callable[[World, str, Fields | None], Response]
PAGES: dict[str, Show] = {
    "/c/pay/{identifier}": checkout_page.show,
    "/p/session/{identifier}": portal_page.show,
    "/i/{identifier}": invoice_page.show,
    "/3ds/{identifier}": invoice_page.show_challenge,
}


def routes(world: World) -> list[Route]:
    """Return the pages; the guard in front asks for the token."""
    return [
        Route(path, _handler(world, show), methods=["GET", "POST"]) for path, show in PAGES.items()
    ]


def _handler(world: World, show: Show) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        fields = None
        if request.method == "POST":
            raw = forms.decode((await request.body()).decode("utf-8", "replace"))
            fields = {key: value for key, value in raw.items() if isinstance(value, str)}
        identifier = request.path_params["identifier"]
        with clocks.time_of(world, clocks.of_request(world, {}, [identifier])):
            return show(world, identifier, fields)

    return answer
