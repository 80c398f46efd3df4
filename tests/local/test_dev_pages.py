"""The /dev pages: forwarded with the token, to this machine only, without our visitor's cookie."""

import dataclasses
import json
import threading
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from fastapi import FastAPI

from openclaw_web.core.settings import settings
from openclaw_web.local import dev_pages, ports
from openclaw_web.local.places import write_secret

TOKEN = "the-simulators-token"  # noqa: S105 - of this test only


class Simulator(BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    protocol_version = "HTTP/1.1"

    def _echo(self):
        length = int(self.headers.get("content-length", 0))
        seen = {
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": self.rfile.read(length).decode(),
        }
        answer = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.send_header("set-cookie", "theirs=1")
        self.send_header("x-custom", "kept")
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_DELETE = _echo  # noqa: N815 - the names that the library calls

    def log_message(self, format, *args):  # noqa: A002 - the library's own name
        pass


@pytest.fixture
def simulator():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Simulator)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def make_client(simulator, tmp_path, monkeypatch):
    write_secret(tmp_path / "token", TOKEN)
    services = {
        "phone": simulator,
        "inbox": f"http://127.0.0.1:{ports.free_port()}",
        "token_file": str(tmp_path / "token"),
    }
    chosen = dataclasses.replace(settings(), dev_services=json.dumps(services))
    monkeypatch.setattr(dev_pages, "settings", lambda: chosen)
    app = FastAPI()
    app.include_router(dev_pages.router)

    @asynccontextmanager
    async def make(*, host="localhost:3000", address="127.0.0.1"):
        transport = httpx.ASGITransport(app, client=(address, 50_000))
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client,
        ):
            yield client

    return make


async def test_a_request_is_forwarded_with_the_token(make_client):
    async with make_client() as client:
        seen = (await client.get("/dev/phone/chats?limit=2")).json()

    assert seen["path"] == "/chats?limit=2"
    assert seen["headers"]["x-simulator-token"] == TOKEN


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_method_and_body_are_passed_on(make_client, method):
    async with make_client() as client:
        seen = (await client.request(method, "/dev/phone/send", content=b"hello")).json()

    assert (seen["method"], seen["body"]) == (method, "hello")


async def test_the_origin_is_passed_on_and_the_host_is_the_simulators(make_client, simulator):
    async with make_client() as client:
        seen = (await client.get("/dev/phone/", headers={"origin": "http://evil.example"})).json()

    assert seen["headers"]["origin"] == "http://evil.example"
    assert f"http://{seen['headers']['host']}" == simulator


async def test_our_visitors_cookie_stays_with_us_and_theirs_with_them(make_client):
    async with make_client() as client:
        answer = await client.get("/dev/phone/", headers={"cookie": "oc_session=secret"})

    assert "cookie" not in answer.json()["headers"]
    assert "set-cookie" not in answer.headers
    assert answer.headers["x-custom"] == "kept"


async def test_a_visitor_cannot_bring_a_token_of_their_own(make_client):
    async with make_client() as client:
        seen = (await client.get("/dev/phone/", headers={"x-simulator-token": "guess"})).json()

    assert seen["headers"]["x-simulator-token"] == TOKEN


@pytest.mark.parametrize(
    "where",
    [{"host": "evil.example"}, {"host": "192.168.1.7:3000"}, {"address": "192.168.1.7"}],
    ids=["foreign name", "our address in the network", "foreign client"],
)
async def test_only_this_machine_is_answered(make_client, where):
    async with make_client(**where) as client:
        assert (await client.get("/dev/phone/")).status_code == 403
        assert (await client.get("/dev/phone")).status_code == 403
        assert (await client.get("/dev/")).status_code == 403


async def test_a_page_without_its_slash_is_sent_to_the_folder(make_client):
    async with make_client() as client:
        answer = await client.get("/dev/phone?chat=7")

    assert answer.status_code == 307
    assert answer.headers["location"] == "/dev/phone/?chat=7"


async def test_an_unknown_simulator_is_not_found(make_client):
    async with make_client() as client:
        assert (await client.get("/dev/weather/")).status_code == 404


async def test_a_silent_simulator_is_said_plainly(make_client):
    async with make_client() as client:
        answer = await client.get("/dev/inbox/")

    assert answer.status_code == 502
    assert "does not answer" in answer.text


async def test_the_index_links_what_this_stack_has(make_client):
    async with make_client() as client:
        page = (await client.get("/dev/")).text

    assert 'href="/dev/phone/"' in page
    assert 'href="/dev/stripe/"' not in page
