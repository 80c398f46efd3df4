"""The worker's timers: one that breaks is told, and the others turn all the same."""

import pytest

from openclaw_web import worker
from openclaw_web.core.errors import OpenClawError
from openclaw_web.workflows import delivery, provisioning, subscription, subscription_mails

PARTS = (
    (worker, "abandon_expired_chats"),
    (subscription, "request_overdue_syncs"),
    (delivery, "turn_timers"),
    (subscription_mails, "send_reminders"),
    (provisioning, "tell_of_outages"),
)


@pytest.mark.parametrize("broken", [name for _, name in PARTS])
async def test_a_timer_that_breaks_holds_up_no_other(monkeypatch, caplog, broken):
    turned = []

    def part(name):
        async def turn():
            turned.append(name)
            if name == broken:
                raise KeyError(name)

        return turn

    for module, name in PARTS:
        monkeypatch.setattr(module, name, part(name))
    with pytest.raises(OpenClawError):
        await worker.turn_timers()
    assert turned == [name for _, name in PARTS]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
