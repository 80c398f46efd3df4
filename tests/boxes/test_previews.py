"""What a change of settings says before it is saved."""

from dataclasses import replace

import pytest

from openclaw_web.billing.models import Tier
from openclaw_web.boxes import previews, service
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.boxes.previews import Change
from openclaw_web.boxes.service import Bot, BoxSettings
from openclaw_web.core.errors import ValidationError
from tests.factories import make_subscription

pytestmark = pytest.mark.usefixtures("redis")
ALEX, MIA = 111222333, 444555666
KNOWN = BoxSettings(telegram_user_ids=(ALEX, MIA), use_case="plan my week")


@pytest.fixture
async def box(session):
    subscription = await make_subscription(session, tier=Tier.TEAM)
    made = await service.create_box(
        session,
        customer_id=subscription.customer_id,
        subscription_id=subscription.id,
        settings=KNOWN,
        bot=Bot(token="1:x", bot_id=1, username="a_bot"),  # noqa: S106 - no bot has it
    )
    made.status = BoxStatus.ACTIVE
    session.add(made)
    await session.flush()
    return made


async def preview(session, box, **fields):
    return await previews.preview_settings(session, box, replace(KNOWN, **fields))


async def test_without_a_change_nothing_happens(session, box):
    shown = await preview(session, box)
    assert (shown.changes, shown.needs_restart, shown.takes_seconds) == ([], False, 0)
    assert shown.sentence == "Nothing changes."


@pytest.mark.parametrize(
    ("fields", "change"),
    [
        ({"thinking_level": "high"}, Change(name="Thinking level", before="medium", after="high")),
        ({"model": "kimi-coding/k3"}, Change(name="Model", before="k2p5", after="k3")),
        (
            {"telegram_user_ids": (ALEX, MIA, 7)},
            Change(
                name="Telegram users who may talk to it",
                before=f"{ALEX}, {MIA}",
                after=f"{ALEX}, {MIA}, 7",
            ),
        ),
    ],
    ids=["level", "model", "added user"],
)
async def test_what_openclaw_takes_in_needs_no_restart(session, box, fields, change):
    shown = await preview(session, box, **fields)
    assert (shown.changes, shown.needs_restart, shown.takes_seconds) == ([change], False, 120)
    assert shown.sentence == "Takes effect within 2 minutes, without a restart."


@pytest.mark.parametrize(
    "fields",
    [
        {"telegram_user_ids": (ALEX,)},
        {"telegram_user_ids": (ALEX, 7)},
        {"telegram_user_ids": (MIA, ALEX)},
        {"language": "de"},
        {"use_case": ""},
        {"style": "short"},
    ],
    ids=["removed user", "exchanged user", "another owner", "language", "use case", "style"],
)
async def test_the_rest_restarts_it_and_says_for_how_long(session, box, fields):
    shown = await preview(session, box, **fields)
    assert (len(shown.changes), shown.needs_restart, shown.takes_seconds) == (1, True, 120)
    assert "up to 2 minutes of silence" in shown.sentence


async def test_a_person_who_was_shut_out_before_does_not_restart_again(session, box):
    await service.change_settings(
        session, box, BoxSettings(telegram_user_ids=(ALEX,)), requested_by="test"
    )
    again = await previews.preview_settings(
        session, box, BoxSettings(telegram_user_ids=(ALEX, MIA))
    )
    assert (again.needs_restart, again.takes_seconds) == (False, 120)


async def test_a_suspended_box_is_not_said_to_restart(session, box):
    box.status = BoxStatus.SUSPENDED
    shown = await preview(session, box, language="de")
    assert (shown.needs_restart, shown.takes_seconds) == (False, 0)
    assert shown.sentence == "Takes effect when the assistant runs again."


async def test_what_the_tier_does_not_give_is_refused_before_it_is_saved(session, box):
    with pytest.raises(ValidationError, match="Telegram user"):
        await preview(session, box, telegram_user_ids=tuple(range(1, 99)))
