"""The simulator's file: what an older simulator left behind is read by a newer one."""

import json
import sqlite3

from simulators.stripe import schedule
from simulators.stripe.store import Store

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
