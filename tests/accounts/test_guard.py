"""Who may call what over the websocket: the real pipeline, spoken to as a browser does."""

import contextlib
import json
import time
import warnings
from contextlib import asynccontextmanager
from typing import ClassVar
from uuid import uuid4

import pytest
import reflex as rx
from reflex_base.registry import RegistrationContext
from reflex_base.utils.format import format_event_handler
from starlette.websockets import WebSocketDisconnect

from openclaw_web.accounts import cookies, live, websockets
from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.guard import BURST, SessionGuard
from openclaw_web.accounts.state import STAFF, AuthState
from openclaw_web.accounts.websockets import TokenCheck
from openclaw_web.core.database import close_database, open_database, session_scope
from openclaw_web.integrations.redis import close_redis, open_redis
from tests.accounts.conftest import newest_code

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it would rather have httpx2, which is not on every index yet
    from starlette.testclient import TestClient

OURS = "http://localhost:3000"
ADA, EVE, ROOT = "ada@example.com", "eve@example.com", "root@example.com"
PASSWORD = "correct horse battery staple"  # noqa: S105 - a test's
HYDRATE = "reflex___state____state.hydrate_and_load"


class Notebook(AuthState):
    text: str = ""

    @rx.event
    async def write(self, text: str):
        if (principal := await self.principal()) is not None:
            self.text = f"{principal.email} wrote {text}"

    @rx.event(background=True)
    async def write_later(self, text: str):
        async with self:
            self.text = text


class Panel(AuthState):
    requires: ClassVar[str] = STAFF
    opened: int = 0

    @rx.event
    async def open(self):
        self.opened += 1


class Porch(rx.State):
    said: str = ""

    @rx.event
    async def say(self, text: str):
        self.said = text


class Bell(rx.State):
    rung: str = ""

    @rx.event
    async def ring(self, mark: str):
        self.rung = mark


class StandingClock:
    """The guard's clock: it stands until a test moves it, and counts the events that were timed."""

    def __init__(self):
        self.now = 0.0
        self.events = 0

    def __call__(self):
        self.events += 1
        return self.now


class Tab:
    """A browser tab: its token, its cookies, and the websocket that it opens."""

    def __init__(self, client, token=None, cookie="", headers=None):
        self.token = token or str(uuid4())
        self.connecting = client.websocket_connect(
            f"/_event/?token={self.token}&EIO=4&transport=websocket",
            headers={
                "upgrade": "websocket",
                "connection": "Upgrade",
                "origin": OURS,
                **({"cookie": cookie} if cookie else {}),
                **(headers or {}),
            },
        )

    def __enter__(self):
        self.socket = self.connecting.__enter__()
        self.socket.receive_text()
        self.socket.send_text("40/_event,")
        self.socket.receive_text()
        return self

    def __exit__(self, *error):
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            self.socket.send_text("41/_event,")
            time.sleep(0.05)  # the server forgets the connection of this tab a moment later
        return self.connecting.__exit__(*error)

    def send(self, handler, page="/notebook", **payload):
        name = handler if isinstance(handler, str) else format_event_handler(handler)
        event = {
            "name": name,
            "payload": payload,
            "router_data": {"pathname": page, "asPath": page},
        }
        self.socket.send_text("42/_event," + json.dumps(["event", event]))

    def receive(self):
        while (message := self.socket.receive_text()) in {"2", "3"}:
            self.socket.send_text("3")
        return json.loads(message.partition(",")[2])[1]

    def hears(self, handler, **payload):
        """Send an event, then a public one as a mark, and return what comes back up to the mark."""
        mark, heard = f"mark {uuid4()}", ""
        self.send(handler, **payload)
        self.send(Bell.ring, mark=mark)
        while mark not in heard:
            heard += json.dumps(self.receive())
        return heard

    def hears_until_it_is_closed(self, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.hears(HYDRATE)
            time.sleep(0.1)


@pytest.fixture
def clock():
    return StandingClock()


@pytest.fixture
def client(database, valkey_server, clock):
    """Run a small app with our guard in front, in a registry of its own."""

    @asynccontextmanager
    async def servers():
        open_database(database)
        open_redis(valkey_server.url)
        async with live.listening():
            yield
        await close_redis()
        await close_database()

    with RegistrationContext.ensure_context().fork():
        app = rx.App(api_transformer=[TokenCheck])
        app.add_middleware(SessionGuard(clock), index=0)
        app.register_lifespan_task(servers)
        for page in ("notebook", "panel", "porch"):
            app.add_page(rx.fragment(), route=f"/{page}")
        with TestClient(app(), base_url=OURS) as running:
            yield running


@pytest.fixture
def signed_in(client):
    """Sign somebody in and return the cookie that their browser has from then on."""

    async def with_code(email):
        async with session_scope() as session:
            await accounts.request_code(session, email, ip=None)
        code = await newest_code(email)
        async with session_scope() as session:
            return await accounts.confirm_code(session, email, code, ip=None, user_agent=None)

    def sign_in(email):
        return f"{cookies.SESSION_COOKIE}={client.portal.call(with_code, email).token}"

    return sign_in


@pytest.fixture
def admin_cookie(client):
    async def make():
        async with session_scope() as session:
            await accounts.create_admin(session, ROOT, PASSWORD)
        async with session_scope() as session:
            return await accounts.sign_in_with_password(
                session, ROOT, PASSWORD, ip=None, user_agent=None
            )

    return f"{cookies.SESSION_COOKIE}={client.portal.call(make).token}"


@pytest.fixture
def sign_out(client):
    async def end(token):
        async with session_scope() as session:
            await accounts.end_session(session, token)

    return lambda cookie: client.portal.call(end, cookie.partition("=")[2])


def test_a_customer_calls_their_own_state(client, signed_in):
    with Tab(client, cookie=signed_in(ADA)) as tab:
        assert "ada@example.com wrote hello" in tab.hears(Notebook.write, text="hello")


def test_anybody_calls_a_public_state(client):
    with Tab(client) as tab:
        assert "hello" in tab.hears(Porch.say, text="hello")


def test_without_a_session_a_customers_state_is_refused(client):
    with Tab(client) as tab:
        heard = tab.hears(Notebook.write, text="hello")
    assert "/login?next=%2Fnotebook" in heard
    assert "hello" not in heard


def test_without_a_session_a_background_handler_is_refused(client):
    with Tab(client) as tab:
        heard = tab.hears(Notebook.write_later, text="hello") + tab.hears(HYDRATE)
    assert "hello" not in heard


def test_a_made_up_cookie_is_nobody(client):
    with Tab(client, cookie="oc_session=made-up") as tab:
        assert "/login" in tab.hears(Notebook.write, text="hello")


def test_a_customer_may_not_open_the_admins_state(client, signed_in):
    with Tab(client, cookie=signed_in(ADA)) as tab:
        heard = tab.hears(Panel.open)
        assert '"/home"' in heard
        heard += tab.hears(HYDRATE)
    assert '"opened_rx_state_": 1' not in heard


def test_an_admin_opens_the_admins_state(client, admin_cookie):
    with Tab(client, cookie=admin_cookie) as tab:
        assert '"opened_rx_state_": 1' in tab.hears(Panel.open)


def test_what_only_our_code_may_ask_is_refused_to_browsers(client, signed_in):
    with Tab(client, cookie=signed_in(ADA)) as tab:
        assert "_redirect" in tab.hears(AuthState.principal)


def test_the_page_knows_who_is_signed_in(client, signed_in):
    with Tab(client, cookie=signed_in(ADA)) as tab:
        heard = tab.hears(HYDRATE)
    assert '"email_rx_state_": "ada@example.com"' in heard
    assert '"is_signed_in_rx_state_": true' in heard
    assert '"is_admin_rx_state_": false' in heard


def test_the_cookie_never_reaches_the_page(client, signed_in):
    cookie = signed_in(ADA)
    with Tab(client, cookie=cookie) as tab:
        heard = tab.hears(HYDRATE) + tab.hears(Notebook.write, text="more")
    assert cookie.partition("=")[2] not in heard


def test_a_tab_that_changes_hands_shows_nothing_of_the_one_before(client, signed_in, sign_out):
    ada, eve = signed_in(ADA), signed_in(EVE)
    with Tab(client, cookie=ada) as tab:
        tab.hears(Notebook.write, text="my secret")
        tab.hears(Porch.say, text="my doubts")
    sign_out(ada)
    with Tab(client, token=tab.token, cookie=eve) as again:
        heard = again.hears(HYDRATE)
    assert "my secret" not in heard
    assert "my doubts" not in heard


def test_signing_out_leaves_nothing_in_the_tab(client, signed_in, sign_out):
    ada = signed_in(ADA)
    with Tab(client, cookie=ada) as tab:
        tab.hears(Notebook.write, text="my secret")
    sign_out(ada)
    with Tab(client, token=tab.token) as again:
        heard = again.hears(HYDRATE)
    assert "my secret" not in heard


def test_signing_in_keeps_what_a_visitor_wrote(client, signed_in):
    with Tab(client, cookie="oc_start=visitor") as tab:
        tab.hears(Porch.say, text="half a chat")
    with Tab(client, token=tab.token, cookie=f"oc_start=visitor; {signed_in(ADA)}") as again:
        assert "half a chat" in again.hears(HYDRATE)


def test_another_visitor_in_the_tab_starts_afresh(client):
    with Tab(client, cookie="oc_start=visitor") as tab:
        tab.hears(Porch.say, text="half a chat")
    with Tab(client, token=tab.token, cookie="oc_start=another") as again:
        heard = again.hears(HYDRATE)
    assert "half a chat" not in heard


@pytest.mark.parametrize("who", [EVE, None], ids=["another customer", "nobody"])
def test_a_stolen_tab_token_is_refused(client, signed_in, who):
    with Tab(client, cookie=signed_in(ADA)) as tab:
        tab.hears(Notebook.write, text="my secret")
    thief = Tab(client, token=tab.token, cookie=signed_in(who) if who else "")
    with pytest.raises(WebSocketDisconnect), thief:
        thief.hears(HYDRATE)


def test_a_tab_may_come_back_with_its_own_session(client, signed_in):
    ada = signed_in(ADA)
    with Tab(client, cookie=ada) as tab:
        tab.hears(Notebook.write, text="my note")
    with Tab(client, token=tab.token, cookie=ada) as again:
        assert "my note" in again.hears(HYDRATE)


def test_a_tab_is_free_again_once_its_state_is_forgotten(client, signed_in, monkeypatch):
    with Tab(client, cookie=signed_in(ADA)) as tab:
        tab.hears(Notebook.write, text="my secret")
    monkeypatch.setattr(websockets, "STATE_SECONDS", -1.0)
    with Tab(client, token=tab.token, cookie=signed_in(EVE)) as again:
        assert "my secret" not in again.hears(HYDRATE)


@pytest.mark.parametrize(
    "token",
    [
        "customer-7",
        "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        "a0eebc99-9c0b-1ef8-bb6d-6bb9bd380a11",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11&token=b1ffcd88-8d1c-4fe9-aa7e-7aa8ae490b22",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11_reflex___state____state",
        "",
    ],
)
def test_a_tab_token_that_no_browser_makes_is_refused(client, token):
    tab = Tab(client)
    tab.connecting = client.websocket_connect(
        f"/_event/?token={token}&EIO=4&transport=websocket",
        headers={"upgrade": "websocket", "connection": "Upgrade", "origin": OURS},
    )
    with pytest.raises(WebSocketDisconnect), tab:
        tab.hears(HYDRATE)


def test_a_page_of_another_site_is_refused(client, signed_in):
    tab = Tab(client, cookie=signed_in(ADA), headers={"origin": "https://evil.example"})
    with pytest.raises(WebSocketDisconnect), tab:
        tab.hears(HYDRATE)


def test_plain_http_is_checked_as_well(client):
    for token, origin in (("customer-7", OURS), (uuid4(), "https://evil.example")):
        answer = client.get(f"/_event/?token={token}&EIO=4", headers={"origin": origin})
        assert (answer.status_code, answer.text) == (403, "This connection is not allowed.\n")
    assert client.get("/ping").status_code == 200


def test_ending_a_session_closes_its_websockets_within_a_second(client, signed_in, sign_out):
    ada, eve = signed_in(ADA), signed_in(EVE)
    with Tab(client, cookie=ada) as tab, Tab(client, cookie=eve) as other:
        tab.hears(Notebook.write, text="my secret")
        began = time.monotonic()
        sign_out(ada)
        with pytest.raises(WebSocketDisconnect) as closed:
            tab.hears_until_it_is_closed(2.0)
        assert time.monotonic() - began < 1.0
        assert closed.value.code == websockets.SESSION_ENDED
        assert "eve@example.com wrote" in other.hears(Notebook.write, text="still here")


def test_the_event_after_the_end_of_a_session_is_refused(client, signed_in, monkeypatch):
    async def deaf(_changed, *, timeout_seconds):
        await live.asyncio.sleep(timeout_seconds)

    monkeypatch.setattr(live, "happened", deaf)
    ada = signed_in(ADA)

    async def end():
        async with session_scope() as session:
            await accounts.end_session(session, ada.partition("=")[2])

    with Tab(client, cookie=ada) as tab:
        tab.hears(Notebook.write, text="my secret")
        client.portal.call(end)
        heard = tab.hears(Notebook.write, text="one more")
    assert "one more" not in heard
    assert '"text_rx_state_": ""' in heard


def test_a_tab_that_floods_us_is_slowed_down(client, clock):
    flood = int(BURST) * 2
    with Tab(client) as tab:
        before = clock.events
        for number in range(flood):
            tab.send(Porch.say, text=f"number {number};")
        heard = ""
        while "a lot at once" not in heard:
            heard += json.dumps(tab.receive())
        while clock.events < before + flood:
            time.sleep(0.01)
        clock.now += 1.0
        heard += tab.hears(Porch.say, text="the end")
    assert "number 0;" in heard
    assert f"number {flood - 1};" not in heard
    assert "the end" in heard


def test_a_state_that_forgets_classvar_is_found_at_once():
    with pytest.raises(TypeError, match="ClassVar"), RegistrationContext.ensure_context().fork():

        class Forgetful(AuthState):
            requires = STAFF
