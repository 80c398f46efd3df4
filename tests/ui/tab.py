"""A browser's tab for tests: it speaks to the real app over the real websocket."""

import contextlib
import json
import time
import warnings
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self
from uuid import uuid4

import reflex as rx
from reflex_base.registry import RegistrationContext
from reflex_base.utils.format import format_event_handler
from starlette.websockets import WebSocketDisconnect

from openclaw_web.accounts import cookies, live
from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.guard import SessionGuard
from openclaw_web.accounts.websockets import TokenCheck
from openclaw_web.core.database import close_database, open_database, session_scope
from openclaw_web.integrations.redis import close_redis, open_redis
from tests.accounts.conftest import newest_code

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it would rather have httpx2, which is not on every index yet
    from starlette.testclient import TestClient

OURS = "http://localhost:3000"
HYDRATE = "reflex___state____state.hydrate_and_load"
PASSWORD = "correct horse battery staple"  # noqa: S105 - a test's


class Mark(rx.State):
    """Tells a test that the events before it are done: those of one tab run in order."""

    text: str = ""

    @rx.event
    async def note(self, mark: str) -> None:
        self.text = mark


@contextmanager
def running_app(database: str, redis_url: str, pages: dict[str, Any]) -> Generator[TestClient]:
    """Run an app with our guards in front; `pages` maps a route to what runs when it is opened."""

    @asynccontextmanager
    async def servers():
        open_database(database)
        open_redis(redis_url)
        async with live.listening():
            yield
        await close_redis()
        await close_database()

    with RegistrationContext.ensure_context().fork():
        app = rx.App(api_transformer=[TokenCheck])
        app.add_middleware(SessionGuard(), index=0)
        app.register_lifespan_task(servers)
        for route, on_load in pages.items():
            app.add_page(rx.fragment(), route=route, on_load=on_load)
        with TestClient(app(), base_url=OURS) as client:
            yield client


class Tab:
    """One tab: its token, its cookies, the page that it shows, and all that it was ever told."""

    def __init__(
        self, client: TestClient, page: str, shows: Any, *, cookie: str = "", token: str = ""
    ) -> None:
        self.page = page
        self._states = [one.get_name() for one in shows.mro() if hasattr(one, "get_name")]
        self.token = token or str(uuid4())
        self.heard = ""
        self.shown: dict[str, Any] = {}
        headers = {"upgrade": "websocket", "connection": "Upgrade", "origin": OURS}
        self._connecting = client.websocket_connect(
            f"/_event/?token={self.token}&EIO=4&transport=websocket",
            headers=headers | ({"cookie": cookie} if cookie else {}),
        )

    def __enter__(self) -> Self:
        self._socket = self._connecting.__enter__()
        self._socket.receive_text()
        self._socket.send_text("40/_event,")
        self._socket.receive_text()
        return self

    def __exit__(self, *error: object) -> Any:
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            self._socket.send_text("41/_event,")
            time.sleep(0.05)  # the server forgets the connection of this tab a moment later
        return self._connecting.__exit__(*error)

    def open(self) -> str:
        """Load the page, as a browser does when it is opened."""
        return self._does(HYDRATE, {}, until='"is_hydrated_rx_state_": true')

    def does(self, handler: Any, **payload: Any) -> str:
        """Send an event and return all that the tab is told until the next one's turn."""
        mark = uuid4().hex
        name = handler if isinstance(handler, str) else format_event_handler(handler)
        self._send(name, payload)
        note: Any = Mark.note
        return self._does(format_event_handler(note), {"mark": mark}, until=mark)

    def _does(self, name: str, payload: dict[str, Any], *, until: str) -> str:
        self._send(name, payload)
        heard = ""
        while until not in heard:
            heard += self._receive()
        self.heard += heard
        return heard

    def _send(self, name: str, payload: dict[str, Any]) -> None:
        page, _, query = self.page.partition("?")
        router = {"pathname": page, "asPath": self.page, "query": dict(_pairs(query))}
        event = {"name": name, "payload": payload, "router_data": router}
        self._socket.send_text("42/_event," + json.dumps(["event", event]))

    def _receive(self) -> str:
        """Take one update and return it as text."""
        while (message := self._socket.receive_text()) in {"2", "3"}:
            self._socket.send_text("3")
        update = json.loads(message.partition(",")[2])[1]
        for state, values in (update.get("delta") or {}).items():
            self._note(state, values)
        return json.dumps(update)

    def _note(self, state: str, values: dict[str, Any]) -> None:
        for name, value in values.items():
            self.shown[f"{state.rpartition('.')[2]}.{name.removesuffix('_rx_state_')}"] = value

    def sees(self, name: str) -> Any:
        """Return what the page's state, or one that it inherits from, was last told to show."""
        keys = (f"{state}.{name}" for state in self._states)
        return next((self.shown[key] for key in keys if key in self.shown), None)


def in_app(
    client: TestClient, act: Callable[..., Awaitable[Any]], *values: Any, **named: Any
) -> Any:
    """Run something in the app's own event loop, where its database is open."""
    assert client.portal is not None
    return client.portal.call(lambda: act(*values, **named))


def customer_cookie(client: TestClient, email: str) -> str:
    """Sign somebody in with a mailed code and return their cookie."""

    async def with_code() -> str:
        async with session_scope() as session:
            await accounts.request_code(session, email, ip=None)
        code = await newest_code(email)
        async with session_scope() as session:
            outcome = await accounts.confirm_code(session, email, code, ip=None, user_agent=None)
        assert isinstance(outcome, accounts.SignedIn)
        return outcome.token

    return f"{cookies.SESSION_COOKIE}={in_app(client, with_code)}"


def admin_cookie(client: TestClient, email: str) -> str:
    async def with_password() -> str:
        async with session_scope() as session:
            await accounts.create_admin(session, email, PASSWORD)
        async with session_scope() as session:
            outcome = await accounts.sign_in_with_password(
                session, email, PASSWORD, ip=None, user_agent=None
            )
        assert isinstance(outcome, accounts.SignedIn)
        return outcome.token

    return f"{cookies.SESSION_COOKIE}={in_app(client, with_password)}"


def _pairs(query: str) -> Iterator[tuple[str, str]]:
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        yield name, value
