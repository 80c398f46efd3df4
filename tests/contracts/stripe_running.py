"""Starts the Stripe simulator for a test, and a tiny receiver for its webhooks."""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import stripe

KEY = "sk_test_0123456789abcdefghijklmn"
TOKEN = "a-token-of-the-tests"  # noqa: S105 - made up
PUBLIC_URL = "http://localhost:9/dev/stripe"
START_SECONDS = 20
REAL_KEY = os.environ.get("STRIPE_TEST_KEY", "")


@dataclass
class Simulator:
    """One simulator process, on its own port, with its own state."""

    folder: Path
    port: int = 0
    process: subprocess.Popen | None = None
    clients: list[httpx.Client] = field(default_factory=list)

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

    def client(self, key=KEY):
        return stripe.StripeClient(key, base_addresses={"api": self.url}, max_network_retries=0)

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


@contextlib.contextmanager
def running(folder: Path):
    simulator = Simulator(folder)
    simulator.start()
    try:
        yield simulator
    finally:
        simulator.stop()


def client_for(simulator):
    """Return the client to ask: Stripe itself when STRIPE_TEST_KEY is set."""
    return stripe.StripeClient(REAL_KEY) if REAL_KEY else simulator.client()


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

    def next(self, secret, seconds=5):
        """Return the next event that arrives, once its signature is proven."""
        signature, body, _ = self.received.get(timeout=seconds)
        return stripe.Webhook.construct_event(body, signature, secret)


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


def item_of(subscription):
    """Return the only item; `subscription.items` would be the method of a mapping."""
    return subscription["items"].data[0]
