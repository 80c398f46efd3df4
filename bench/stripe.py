"""What the Stripe simulator itself costs: a year of many customers, and signed webhooks a second.

    python -m bench.stripe [--customers 200] [--days 365]

Both run in this process, on a file in a temporary folder; the webhooks' receiver does too, so its
work is part of the figure.
"""

import argparse
import asyncio
import contextlib
import json
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

from simulators.stripe import schedule
from simulators.stripe.api import Api, Call
from simulators.stripe.clock import DAY, Clock
from simulators.stripe.courier import Courier
from simulators.stripe.store import Store
from simulators.stripe.world import World

KEY = "sk_test_made_up_for_a_benchmark"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
POLL_SECONDS = 0.05


class Account:
    """The simulator's API without HTTP."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "stripe.sqlite", schedule.due_at)
        self.world = World(store=self.store, clock=Clock(self.store), public_url="http://localhost")
        self._api = Api(self.world, KEY)

    def post(self, path: str, **fields: object) -> str:
        """Make something, and return its id."""
        headers = {"authorization": f"Bearer {KEY}"}
        call = Call(method="POST", path=f"/v1{path}", fields=urlencode(fields), headers=headers)
        answer = self._api.handle(call)
        if answer.status != 200:  # noqa: PLR2004 - HTTP
            raise SystemExit(answer.body)
        return json.loads(answer.body)["id"]

    def count(self, question: str) -> int:
        (found,) = self.store.sql.execute(f"SELECT count(*) FROM {question}").fetchone()  # noqa: S608 - our own words
        return found


def subscribe(account: Account, customers: int) -> None:
    recurring = {"recurring[interval]": "month", "product_data[name]": "Plus"}
    price = account.post("/prices", currency="usd", unit_amount=2000, **recurring)
    for _ in range(customers):
        customer = account.post("/customers", email="ada@example.com")
        card = account.post("/payment_methods/pm_card_visa/attach", customer=customer)
        wish = {"items[0][price]": price, "default_payment_method": card}
        account.post("/subscriptions", customer=customer, **wish)


def live(account: Account, days: int) -> str:
    """Let time pass; return what each thing that happened by itself cost."""
    target = account.world.wall() + days * DAY
    began, steps = time.process_time(), 0
    while schedule.step(account.world, target):
        steps += 1
    spent = time.process_time() - began
    events = account.count("objects WHERE object = 'event'")
    return (
        f"{days} days: {steps} hops, {events} events, {spent:.1f} s of CPU,"
        f" {spent / steps * 1000:.2f} ms a hop"
    )


async def deliver(account: Account) -> str:
    """Deliver every event that waits; return how many there are a second."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                writer.write(OK)
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    for endpoint in account.store.every("webhook_endpoint"):
        account.store.put({**endpoint, "url": url})
    waiting = "deliveries WHERE state = 'pending'"
    total = account.count(waiting)
    began, work = time.monotonic(), time.process_time()
    courier = asyncio.create_task(Courier(account.world).run())
    while account.count(waiting):  # noqa: ASYNC110 - the file knows, nobody tells
        await asyncio.sleep(POLL_SECONDS)
    seconds, spent = time.monotonic() - began, time.process_time() - work
    courier.cancel()
    await asyncio.gather(courier, return_exceptions=True)
    server.close()
    return (
        f"{total} signed webhooks: {total / seconds:.0f} a second, {spent / total * 1000:.2f} ms of"
        " CPU each, receiver included"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=int, default=200)
    parser.add_argument("--days", type=int, default=365)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        account = Account(Path(folder))
        subscribe(account, chosen.customers)
        print(live(account, chosen.days))
        subscribed = {"url": "http://127.0.0.1/", "enabled_events[]": "*"}
        account.post("/webhook_endpoints", **subscribed)
        subscribe(account, chosen.customers)
        print(asyncio.run(deliver(account)))
        account.store.close()


if __name__ == "__main__":
    main()
