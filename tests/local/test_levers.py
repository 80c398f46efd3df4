"""What an operator decides about money from a shell: written down, and only with a reason."""

from dataclasses import replace

import pytest
from sqlmodel import select

from openclaw_web import cli
from openclaw_web.accounts.models import AuditLog
from openclaw_web.core.database import close_database, open_database, session_scope
from openclaw_web.core.errors import NotFoundError, ValidationError
from openclaw_web.core.settings import settings
from openclaw_web.local import levers
from openclaw_web.workflows.brakes import RULES, Switch
from tests.factories import make_box


@pytest.fixture
async def chosen(database, valkey_server):
    """Return settings that name the servers of this test; each act opens and closes them."""
    await close_database()
    yield replace(settings(), database_url=database, redis_url=valkey_server.url)
    open_database(database)


async def actions(database: str) -> list[str]:
    open_database(database)
    async with session_scope() as session:
        found = [line.action for line in (await session.exec(select(AuditLog))).all()]
    await close_database()
    return found


async def test_a_switch_is_turned_shown_and_written_down(chosen):
    assert "refund_fraud_warnings: off" in await levers.show(chosen)
    with pytest.raises(ValidationError):
        await levers.turn(chosen, Switch.REFUND_FRAUD_WARNINGS, is_on=True, reason="")
    await levers.turn(chosen, Switch.REFUND_FRAUD_WARNINGS, is_on=True, reason="Fewer disputes.")
    assert "refund_fraud_warnings: on" in await levers.show(chosen)
    assert await actions(chosen.database_url) == ["switch.on.refund_fraud_warnings"]


async def test_a_brake_that_is_not_on_is_released_all_the_same(chosen):
    assert not await levers.release(chosen, "refunds", reason="To be sure.")
    assert await actions(chosen.database_url) == ["brake.released.refunds"]


async def test_nobodys_money_is_not_given_back(chosen):
    with pytest.raises(NotFoundError):
        await levers.refund(chosen, "nobody@example.com", reason="A test.", ends_now=False)


def test_the_command_knows_every_brake_and_every_switch():
    parser = cli._parser()  # noqa: SLF001 - the names stand there so that help needs no database
    for brake in RULES:
        found = parser.parse_args(["admin", "brakes", "--release", brake.value])
        assert found.release == brake.value
    for switch in Switch:
        assert parser.parse_args(["admin", "brakes", "--on", switch.value]).on == switch.value


async def test_an_incident_is_called_over_from_a_shell_with_a_reason(chosen):
    open_database(chosen.database_url)
    async with session_scope() as session:
        await make_box(session)
    await close_database()
    with pytest.raises(ValidationError):
        await levers.act_on_cluster(chosen, "end-incident", "default", reason="")
    with pytest.raises(NotFoundError):
        await levers.act_on_cluster(chosen, "end-incident", "defalt", reason="The node is back.")
    await levers.act_on_cluster(chosen, "end-incident", "default", reason="The node is back.")
    await levers.act_on_cluster(chosen, "allow-drift", "default", reason="A new release.")
    assert await actions(chosen.database_url) == ["incident.ended", "drift.allowed"]


def test_the_command_knows_every_act_on_a_cluster():
    parser = cli._parser()  # noqa: SLF001 - as above
    for act in levers.CLUSTER_ACTS:
        asked = parser.parse_args(["admin", "cluster", "default", f"--{act}", "--reason", "So."])
        assert asked.acts == [act]
