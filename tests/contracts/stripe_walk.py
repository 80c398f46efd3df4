"""A random walk through an account of the simulator, and what must be true wherever it leads."""

import json
import random
from urllib.parse import urlencode

from simulators.stripe import clocks, lifecycle, schedule
from simulators.stripe.api import Api, Call
from simulators.stripe.clock import Clock
from simulators.stripe.store import Store
from simulators.stripe.world import World
from tests.contracts.stripe_contract import flaws, flaws_of_error

KEY = "sk_test_of_a_random_walk"
HOUR, DAY = 3600, 86_400
CARDS = (
    "pm_card_visa",
    "pm_card_visa",
    "pm_card_chargeCustomerFail",
    "pm_card_authenticationRequired",
    "pm_card_createDispute",
    "pm_card_chargeDeclined",
)
COUPONS = (
    {"duration": "once", "percent_off": 30},
    {"duration": "forever", "percent_off": 100},
    {"duration": "forever", "amount_off": 700, "currency": "usd"},
    {"duration": "repeating", "duration_in_months": 2, "percent_off": 50},
)
PRICES = ((1900, "month"), (9900, "month"), (20, "month"), (50_000, "year"))
BEHAVIORS = ("allow_incomplete", "default_incomplete", "error_if_incomplete")


class Walk:
    """One account, without HTTP; every answer is held against the library's types."""

    def __init__(self, folder, seed):
        self.store = Store(folder / f"{seed}.sqlite", schedule.due_at)
        self.world = World(store=self.store, clock=Clock(self.store), public_url="http://localhost")
        self._api = Api(self.world, KEY)
        self._chance = random.Random(seed)  # noqa: S311 - the same walk each time
        self.refusals = 0
        self._prices = [self._price(amount, interval) for amount, interval in PRICES]
        self._coupons = [self.call("POST", "/coupons", **coupon)["id"] for coupon in COUPONS]
        self._customers, self._subscriptions, self._clocks = [], [], []

    def close(self):
        self.store.close()

    def call(self, method, path, **fields):
        """Ask, and return the answer; None when Stripe would refuse."""
        headers = {"authorization": f"Bearer {KEY}"}
        asked = urlencode(_flat(fields))
        answer = self._api.handle(
            Call(method=method, path=f"/v1{path}", fields=asked, headers=headers)
        )
        body = json.loads(answer.body)
        found = flaws(body) if answer.status == 200 else flaws_of_error(body)
        assert not found, (method, path, fields, found)
        assert answer.status < 500, body
        self.refusals += answer.status != 200
        return body if answer.status == 200 else None

    def step(self):
        steps = {
            self._come: 2,
            self._give_card: 3,
            self._subscribe: 4,
            self._change: 5,
            self._leave: 1,
            self._touch_invoice: 3,
            self._touch_charge: 1,
            self._credit: 1,
            self._wait: 2,
            self._travel: 3,
        }
        self._pick_weighted(steps)()

    def _pick_weighted(self, steps):
        return self._chance.choices(list(steps), list(steps.values()))[0]

    def _pick(self, things):
        return self._chance.choice(things)

    def _price(self, amount, interval):
        recurring = {"interval": interval}
        wish = {"unit_amount": amount, "currency": "usd", "recurring": recurring}
        return self.call("POST", "/prices", product_data={"name": "Plus"}, **wish)["id"]

    def _come(self):
        fields = {}
        if self._chance.random() < 0.4:
            moment = self.world.wall() + self._chance.randrange(-100 * DAY, 100 * DAY)
            clock = self.call("POST", "/test_helpers/test_clocks", frozen_time=moment)
            self._clocks.append(clock["id"])
            fields["test_clock"] = clock["id"]
        made = self.call("POST", "/customers", email="ada@example.com", **fields)
        self._customers.append(made["id"])

    def _give_card(self):
        customer = self._customer()
        card = self._pick(CARDS)
        method = self.call("POST", f"/payment_methods/{card}/attach", customer=customer)
        if method:
            settings = {"default_payment_method": method["id"]}
            self.call("POST", f"/customers/{customer}", invoice_settings=settings)

    def _subscribe(self):
        fields = {
            "customer": self._customer(),
            "items": [{"price": self._pick(self._prices), "quantity": self._pick((1, 3))}],
            "payment_behavior": self._pick(BEHAVIORS),
            "proration_behavior": self._pick(("none", "create_prorations")),
        }
        if self._chance.random() < 0.3:
            fields["discounts"] = [{"coupon": self._pick(self._coupons)}]
        if self._chance.random() < 0.3:
            fields |= self._pick(
                (
                    {"trial_period_days": 5},
                    {"billing_cycle_anchor_config": {"day_of_month": 31}},
                )
            )
        made = self.call("POST", "/subscriptions", **fields)
        if made:
            self._subscriptions.append(made["id"])

    def _change(self):
        if not self._subscriptions:
            return
        identifier = self._pick(self._subscriptions)
        item = self.call("GET", f"/subscriptions/{identifier}")["items"]["data"][0]["id"]
        prices = {
            "items": [{"id": item, "price": self._pick(self._prices)}],
            "proration_behavior": self._pick(("none", "create_prorations", "always_invoice")),
        }
        wishes = (
            {**prices, "payment_behavior": self._pick((*BEHAVIORS, "pending_if_incomplete"))},
            {**prices, "billing_cycle_anchor": {"type": "now"}},
            {"items": [{"id": item, "quantity": self._pick((1, 2, 5))}]},
            {"cancel_at_period_end": self._pick((True, False))},
            {"discounts": [{"coupon": self._pick(self._coupons)}]},
            {"pause_collection": {"behavior": self._pick(("void", "keep_as_draft"))}},
            {"pause_collection": ""},
            {"trial_end": "now"},
        )
        self.call("POST", f"/subscriptions/{identifier}", **self._pick(wishes))
        self.call("POST", "/invoices/create_preview", subscription=identifier)

    def _leave(self):
        if self._subscriptions:
            path = f"/subscriptions/{self._pick(self._subscriptions)}"
            self.call("DELETE", path, prorate=self._pick((True, False)), invoice_now=True)

    def _touch_invoice(self):
        expand = ["data.discounts", "data.payments"]
        found = self.call("GET", "/invoices", customer=self._customer(), expand=expand)
        if found and found["data"]:
            what = self._pick(("pay", "pay", "void", "mark_uncollectible", "finalize"))
            self.call("POST", f"/invoices/{self._pick(found['data'])['id']}/{what}")

    def _touch_charge(self):
        found = self.call("GET", "/charges", limit=50)["data"]
        if found:
            amount = self._chance.randrange(1, 4000)
            self.call("POST", "/refunds", charge=self._pick(found)["id"], amount=amount)

    def _credit(self):
        amount = self._pick((-3000, 500, 40))
        path = f"/customers/{self._customer()}/balance_transactions"
        self.call("POST", path, amount=amount, currency="usd")

    def _wait(self):
        target = self.world.wall() + self._pick((HOUR, DAY, 10 * DAY, 31 * DAY))
        while schedule.step(self.world, target):
            pass
        self.world.clock.move_to(target)

    def _travel(self):
        if not self._clocks:
            return
        identifier = self._pick(self._clocks)
        path = f"/test_helpers/test_clocks/{identifier}"
        clock = self.call("GET", path)
        target = clock["frozen_time"] + self._pick((HOUR, 3 * DAY, 20 * DAY, 45 * DAY))
        if self.call("POST", f"{path}/advance", frozen_time=target):
            while schedule.step(self.world, target, identifier):
                pass
            clocks.arrive(self.world, self.store.get(identifier) or {})

    def _customer(self):
        if not self._customers:
            self._come()
        return self._pick(self._customers)


def check(store):
    """Money adds up, and what has ended has an end."""
    for invoice in store.every("invoice"):
        _check_invoice(invoice)
    for subscription in store.every("subscription"):
        has_ended = subscription["status"] in lifecycle.ENDED
        assert (subscription["ended_at"] is not None) == has_ended, subscription
        item = subscription["items"]["data"][0]
        assert item["current_period_start"] < item["current_period_end"], subscription
    for customer in store.every("customer"):
        changes = store.every("customer_balance_transaction", customer["id"])
        assert customer["balance"] == sum(one["amount"] for one in changes), customer
        invoices = store.every("invoice", customer["id"])
        intents = store.every("payment_intent", customer["id"])
        paid = sum(one["amount_paid"] for one in invoices)
        assert paid == sum(one["amount_received"] for one in intents), customer


def _check_invoice(invoice):
    lines = invoice["lines"]["data"]
    off = sum(one["amount"] for one in invoice["total_discount_amounts"])
    assert invoice["subtotal"] == sum(line["amount"] for line in lines), invoice
    assert invoice["total"] == invoice["subtotal"] - off, invoice
    assert off == sum(one["amount"] for line in lines for one in line["discount_amounts"]), invoice
    is_paid = invoice["status"] == "paid"
    assert invoice["amount_paid"] == (invoice["amount_due"] if is_paid else 0), invoice


def _flat(fields, prefix=""):
    """Return the form's fields: `items[0][price]`."""
    flat = []
    pairs = fields.items() if isinstance(fields, dict) else enumerate(fields)
    for key, value in pairs:
        name = f"{prefix}[{key}]" if prefix else str(key)
        if isinstance(value, dict | list):
            flat += _flat(value, name)
        else:
            flat.append((name, str(value).lower() if isinstance(value, bool) else value))
    return flat
