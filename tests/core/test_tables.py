"""Every table is known to the one module from which processes start."""

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import NoReferencedTableError

from openclaw_web import tables


def test_every_foreign_key_leads_to_a_table_of_ours():
    tables.resolve()


def test_a_key_that_leads_nowhere_fails_at_start(monkeypatch):
    lost = sa.MetaData()
    sa.Table("a", lost, sa.Column("b_id", sa.ForeignKey("b.id")))
    monkeypatch.setattr(tables, "METADATA", lost)
    with pytest.raises(NoReferencedTableError):
        tables.resolve()
