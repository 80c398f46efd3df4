"""Starts the Stripe simulator for a test, and a tiny receiver for its webhooks."""

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import stripe

from tests.contracts.stripe_contract import flaws, flaws_of_error

KEY = "sk_test_0123456789abcdefghijklmn"
TOKEN = "a-token-of-the-tests"  # noqa: S105 - made up
PUBLIC_URL = "http://localhost:9/dev/stripe"
START_SECONDS = 20
REAL_KEY = os.environ.get("STRIPE_TEST_KEY", "")
CLOCK_SECONDS = 120.0  # how long Stripe may take to move a test clock
simulator_only = pytest.mark.skipif(bool(REAL_KEY), reason="asks for what Stripe would do")


@dataclass
class Simulator:
    """One simulator process, on its own port, with its own state."""

    folder: Path
    port: int = 0
    process: subprocess.Popen | None = None
    clients: list["httpx.Client | Checked"] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, secret in (("token", TOKEN), ("key", KEY)):
            (self.folder / name).write_text(secret)
            (self.folder / name).chmod(0o600)
        self.port = self.port or free_port()
        options = {
            "--port": str(self.port),
            "--state": str(self.folder / "state"),
            "--public-url": PUBLIC_URL,
            "--token-file": str(self.folder / "token"),
            "--key-file": str(self.folder / "key"),
        }
        words = [word for pair in options.items() for word in pair]
        self.process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "simulators.stripe", *words],
            cwd=Path(__file__).parents[2],
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)
        raise TimeoutError("the simulator did not start")

    def stop(self, number=signal.SIGTERM):
        for client in self.clients:
            client.close()
        self.clients.clear()
        if self.process:
            self.process.send_signal(number)
            self.process.wait(10)
            self.process = None

    def client(self, key=KEY, retries=0):
        checked = Checked()
        self.clients.append(checked)
        return stripe.StripeClient(
            key,
            base_addresses={"api": self.url},
            max_network_retries=retries,
            http_client=checked,
        )

    def browser(self):
        """A browser that comes through the forwarder: it has the token and the public origin."""
        headers = {"X-Simulator-Token": TOKEN, "Origin": "http://localhost:9"}
        client = httpx.Client(base_url=self.url, headers=headers)
        self.clients.append(client)
        return client

    def advance(self, **spans):
        units = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
        seconds = sum(units[name] * number for name, number in spans.items())
        answer = self.browser().post("/_control/clock/advance", json={"seconds": seconds})
        assert answer.status_code == 200, answer.text
        return answer.json()


class Checked(stripe.HTTPClient):
    """The library's way to the server, where each answer is held against the library's types."""

    name = "checked"
    MAX_DELAY = INITIAL_DELAY = 0.01

    def __init__(self):
        super().__init__()
        self._pool = httpx.Client(timeout=30, trust_env=bool(REAL_KEY))

    def request(self, method, url, headers=None, post_data=None, *, _usage=None):
        try:
            answer = self._pool.request(method, url, headers=headers, content=post_data or b"")
        except httpx.HTTPError as error:
            raise stripe.APIConnectionError(str(error), should_retry=True) from error
        body = json.loads(answer.content)
        found = flaws(body) if answer.is_success else flaws_of_error(body)
        assert not found, f"{method} {url}: {found}"
        assert answer.headers["Request-Id"].startswith("req_")
        return answer.content, answer.status_code, answer.headers

    def close(self):
        self._pool.close()


@contextlib.contextmanager
def running(folder: Path):
    simulator = Simulator(folder)
    simulator.start()
    try:
        yield simulator
    finally:
        simulator.stop()


@contextlib.contextmanager
def client_for(simulator):
    """Give the client to ask: Stripe itself when STRIPE_TEST_KEY is set."""
    if not REAL_KEY:
        yield simulator.client()
        return
    assert REAL_KEY.startswith(("sk_test_", "rk_test_")), "STRIPE_TEST_KEY must be of test mode"
    checked = Checked()
    yield stripe.StripeClient(REAL_KEY, http_client=checked)
    checked.close()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Receiver:
    """Listens for webhooks and answers with the statuses of `answers`, then 200."""

    def __init__(self):
        self.received: queue.Queue = queue.Queue()
        self.answers: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.answers.pop(0) if receiver.answers else 200
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                receiver.received.put((self.headers["Stripe-Signature"], body, status))

            def log_request(self, code="-", size="-"):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def next(self, secret, seconds=30):
        """Return the next event that arrives, once its signature is proven."""
        signature, body, _ = self.received.get(timeout=seconds)
        event = stripe.Webhook.construct_event(body, signature, secret)
        assert flaws(json.loads(body)) == []
        return event


def make_price(client, **more):
    return client.v1.prices.create(
        {
            "currency": "usd",
            "unit_amount": 2000,
            "recurring": {"interval": "month"},
            "product_data": {"name": "Plus"},
            **more,
        }
    )


def make_subscription(client, card="pm_card_visa", **more):
    """Return a customer's subscription, paid with a card."""
    customer = client.v1.customers.create({"email": "ada@example.com"})
    method = client.v1.payment_methods.attach(card, {"customer": customer.id})
    return client.v1.subscriptions.create(
        {
            "customer": customer.id,
            "items": [{"price": make_price(client).id}],
            "default_payment_method": method.id,
            **more,
        }
    )


def make_session(client, price, **more):
    return client.v1.checkout.sessions.create(
        {
            "mode": "subscription",
            "line_items": [{"price": price.id, "quantity": 1}],
            "success_url": "http://localhost:9/welcome?session={CHECKOUT_SESSION_ID}",
            "cancel_url": "http://localhost:9/plans",
            **more,
        }
    )


def make_customer(client, card="pm_card_visa", **more):
    """Return a customer whose invoices are taken from a card."""
    customer = client.v1.customers.create({"email": "ada@example.com", **more})
    if card:
        method = client.v1.payment_methods.attach(card, {"customer": customer.id})
        settings = {"default_payment_method": method.id}
        client.v1.customers.update(customer.id, {"invoice_settings": settings})
    return customer


def make_clock(client, start):
    """Return a test clock that stands at a moment, given as text in UTC."""
    return client.v1.test_helpers.test_clocks.create({"frozen_time": at(start)})


def move(client, clock, to):
    """Move a test clock and wait until it is there."""
    clocks = client.v1.test_helpers.test_clocks
    assert clocks.advance(clock.id, {"frozen_time": to}).status == "advancing"
    wait_for(client, clock, to)


def wait_for(client, clock, to):
    """Wait until a test clock has arrived."""
    clocks = client.v1.test_helpers.test_clocks
    deadline = time.monotonic() + CLOCK_SECONDS
    pause = 2.0 if REAL_KEY else 0.01
    while clocks.retrieve(clock.id).status != "ready":
        assert time.monotonic() < deadline, "the test clock did not arrive"
        time.sleep(pause)
    assert clocks.retrieve(clock.id).frozen_time == to


def at(text):
    """Return a moment in seconds, from a text in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def day_of(moment):
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"


def item_of(subscription):
    """Return the only item; `subscription.items` would be the method of a mapping."""
    return subscription["items"].data[0]
