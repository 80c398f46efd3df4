"""A running Stripe for tests: the simulator as its own process, spoken to through our adapter."""

import random
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.contracts.simulator_process import Simulator, running, secret_file

KEY = "sk_test_0123456789abcdef"
SUCCESS_URL = "http://localhost:3000/start/return?checkout={CHECKOUT_SESSION_ID}"
CANCEL_URL = "http://localhost:3000/start"
GOOD_CARD = "4242424242424242"
DECLINED_CARD = "4000000000000002"
FAILS_LATER_CARD = "4000000000000341"


class StripeWorld:
    """What a test does at Stripe that our product does not: pay, refuse, cancel, read events."""

    def __init__(self, simulator: Simulator) -> None:
        self.url = simulator.url
        self._pages = simulator.http

    def pay(self, stripe_session_id: str, *, card: str = GOOD_CARD) -> httpx.Response:
        """Submit the hosted page, as the customer's click does."""
        return self._pages.post(
            f"/c/pay/{stripe_session_id}",
            data={"email": "payer@example.com", "name": "Pay Er", "card": card},
        )

    def open_invoices(self, stripe_customer_id: str) -> list[str]:
        fields = {"customer": stripe_customer_id, "status": "open"}
        return [one["id"] for one in self.api("GET", "/invoices", params=fields)["data"]]

    def pay_invoice(self, invoice_id: str, *, card: str = GOOD_CARD) -> httpx.Response:
        """Submit the hosted invoice with a new card."""
        return self._pages.post(f"/i/{invoice_id}", data={"card": card})

    def api(self, method: str, path: str, **fields: Any) -> dict[str, Any]:
        answer = self._pages.request(
            method, f"/v1{path}", headers={"authorization": f"Bearer {KEY}"}, **fields
        )
        assert answer.is_success, answer.text
        return answer.json()

    def events_of(self, stripe_customer_id: str) -> list[dict[str, Any]]:
        """Return everything that happened to a customer, the oldest first."""
        listed = self.api("GET", "/events", params={"limit": 100})["data"]
        return [event for event in reversed(listed) if _is_about(event, stripe_customer_id)]

    def act(self, what: str, identifier: str) -> None:
        """Do what a bank does: `dispute` or `warning` of a charge; `won` or `lost` of a dispute."""
        answer = self._pages.post(f"/_control/{what}/{identifier}")
        assert answer.is_success, answer.text

    def subscribe(
        self, stripe_customer_id: str, price_id: str, *, card: str = "pm_card_visa"
    ) -> str:
        """Make a paid subscription that our own payment page knows nothing of."""
        attached = {"customer": stripe_customer_id}
        method = self.api("POST", f"/payment_methods/{card}/attach", data=attached)
        fields = {
            "customer": stripe_customer_id,
            "items[0][price]": price_id,
            "default_payment_method": method["id"],
        }
        made = self.api("POST", "/subscriptions", data=fields)
        assert made["status"] == "active", made
        return made["id"]

    def fail_next(self, kind: str, *, method: str, path: str) -> None:
        """Let the next call that fits go wrong, in one of the simulator's ways."""
        fault = {"kind": kind, "method": method, "path": path}
        answer = self._pages.post("/_control/faults", json=fault)
        assert answer.is_success, answer.text

    def offset_seconds(self) -> float:
        """Return how far this Stripe's clock is ahead of the real one."""
        return self._pages.get("/_control/clock").json()["offset_seconds"]

    def advance(self, seconds: int) -> None:
        answer = self._pages.post("/_control/clock/advance", json={"seconds": seconds})
        assert answer.is_success, answer.text


@contextmanager
def stripe_world(folder: Path) -> Generator[StripeWorld]:
    key_file = secret_file(folder / "key", KEY)
    with running("stripe", folder / "stripe", "--key-file", str(key_file)) as simulator:
        yield StripeWorld(simulator)


def shuffled(events: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Return the events in another order, some of them twice."""
    chance = random.Random(seed)  # noqa: S311 - the same order each time is what a test wants
    doubled = events + chance.sample(events, k=len(events) // 2)
    chance.shuffle(doubled)
    return doubled


def _is_about(event: dict[str, Any], stripe_customer_id: str) -> bool:
    thing = event["data"]["object"]
    return stripe_customer_id in {thing["id"], thing.get("customer")}
