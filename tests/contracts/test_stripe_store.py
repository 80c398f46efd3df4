"""The simulator's file: older ones are read, and a promise to move a test clock is kept."""

import json
import signal
import sqlite3

from simulators.stripe import schedule
from simulators.stripe.store import Store
from tests.contracts.stripe_running import at, make_clock, make_customer, make_price, wait_for

pytest_plugins = ["tests.contracts.stripe_fixtures"]
FIRST_TABLES = """
CREATE TABLE objects (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, object TEXT NOT NULL,
  customer TEXT, due_at INTEGER, body TEXT NOT NULL);
"""


def test_a_file_of_the_first_version_is_brought_up_to_date(tmp_path):
    path = tmp_path / "stripe.sqlite"
    refund = {"id": "re_1", "object": "refund", "charge": "ch_1"}
    with sqlite3.connect(path) as old:
        old.executescript(FIRST_TABLES)
        fields = (refund["id"], "refund", json.dumps(refund))
        old.execute("INSERT INTO objects (id, object, body) VALUES (?, ?, ?)", fields)
    old.close()
    for _ in range(2):
        store = Store(path, schedule.due_at)
        assert list(store.every("refund", parent="ch_1")) == [refund]
        store.close()


def test_a_test_clock_arrives_although_the_simulator_was_killed(fresh_stripe):
    client = fresh_stripe.client()
    clock = make_clock(client, "2027-01-31T10:00")
    customer = make_customer(client, test_clock=clock.id)
    price = make_price(client)
    made = client.v1.subscriptions.create({"customer": customer.id, "items": [{"price": price.id}]})
    target = at("2027-03-30T10:00")
    client.v1.test_helpers.test_clocks.advance(clock.id, {"frozen_time": target})
    fresh_stripe.stop(signal.SIGKILL)
    fresh_stripe.start()
    client = fresh_stripe.client()
    wait_for(client, clock, target)
    assert len(client.v1.invoices.list({"subscription": made.id, "status": "paid"}).data) == 2
