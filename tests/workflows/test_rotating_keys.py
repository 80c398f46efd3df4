"""Keys that encrypt at rest: several may read, the newest writes, a rotation brings all to it."""

import base64
from argparse import Namespace
from dataclasses import replace
from uuid import UUID

import pytest
from cryptography.exceptions import InvalidTag
from sqlmodel import select

from openclaw_web import cli
from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.models import OutboxMail
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.memory import backups
from openclaw_web.boxes.models import BoxBackup, BoxSecret
from openclaw_web.core import secrets
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import SettingsError
from openclaw_web.core.settings import settings
from openclaw_web.local import support
from openclaw_web.workflows import rotating
from tests.factories import make_box

pytestmark = pytest.mark.usefixtures("database", "redis")
TWO = "k2:" + base64.b64encode(b"2" * 32).decode()
THREE = "k3:" + base64.b64encode(b"3" * 32).decode()
CODE = "424242"
TOKEN = "123456:AAbbCCddEEffGGhhIIjjKKllMMnnOOppQQr"  # noqa: S105 - nobody's


@pytest.fixture
def keys(monkeypatch):
    def choose(*names):
        chosen = replace(settings(), encryption_keys=",".join(names))
        monkeypatch.setattr(secrets, "settings", lambda: chosen)

    return choose


async def kept_secrets():
    """Make one secret of each kind under the key of the moment."""
    async with session_scope() as session:
        box = await make_box(session)
        sealed = secrets.encrypt(boxes.BOT_TOKEN_PURPOSE, TOKEN)
        kept = BoxSecret(box_id=box.id, telegram_token_ct=sealed, key_id=secrets.key_id(), bot_id=1)
        session.add(kept)
        ticket = await backups.begin_save(session, box, backups.Reason.MANUAL, most=1)
        await accounts.queue_mail(
            session,
            kind="code",
            recipient="ada@example.com",
            secret=CODE,
            dedupe_key="one",
        )
    return box.id, ticket.backup_id


async def read(box_id, backup_id):
    async with session_scope() as session:
        backup = await session.get_one(BoxBackup, backup_id)
        assert backup.key_ct is not None
        key = secrets.decrypt_bytes(backups.KEY_PURPOSE, backup.key_ct)
        token = await boxes.bot_token(session, box_id)
        bot = await session.get_one(BoxSecret, box_id)
    return key, token, {backup.key_id, bot.key_id}


async def test_a_rotation_brings_every_secret_under_the_newest_key(keys):
    ids = await kept_secrets()
    before = await read(*ids)
    assert before[2] == {"k1"}
    keys(TWO)
    assert await read(*ids) == before
    done = (await rotating.rotate_keys()).done
    assert (done["box_secrets"], done["box_backups"], done["email_outbox"]) == (1, 1, 1)
    assert await read(*ids) == (before[0], TOKEN, {"k2"})
    assert sum((await rotating.rotate_keys()).done.values()) == 0


async def test_an_old_key_may_go_once_nothing_is_under_it(keys):
    keys(TWO)
    ids = await kept_secrets()
    keys(THREE, TWO)
    await rotating.rotate_keys()
    keys(THREE)
    assert (await read(*ids))[1:] == (TOKEN, {"k3"})


async def test_a_rotation_that_was_ended_goes_on_where_it_was(keys, monkeypatch):
    monkeypatch.setattr(rotating, "BATCH", 1)
    several = [await kept_one(number) for number in range(3)]
    keys(TWO)
    batch = await rotating._rotate_batch(rotating.SEALED[0], UUID(int=0))  # noqa: SLF001 - then it ended
    assert list(batch) == [min(several)]
    assert (await rotating.rotate_keys()).done["box_secrets"] == 2
    async with session_scope() as session:
        assert [await boxes.bot_token(session, one) for one in several] == [TOKEN] * 3


async def kept_one(number):
    async with session_scope() as session:
        box = await make_box(session)
        sealed = secrets.encrypt(boxes.BOT_TOKEN_PURPOSE, TOKEN)
        session.add(
            BoxSecret(
                box_id=box.id, telegram_token_ct=sealed, key_id=secrets.key_id(), bot_id=number
            )
        )
    return box.id


async def test_a_missing_key_is_named_and_nothing_is_spoilt(keys):
    keys(TWO)
    ids = await kept_secrets()
    keys(THREE)
    found = await rotating.rotate_keys()
    assert sum(found.done.values()) == 0
    assert {one.table for one in found.unreadable} == {"box_secrets", "box_backups", "email_outbox"}
    name = f"box_secrets {ids[0]}: its key k2 is not in ENCRYPTION_KEYS; put it back."
    assert name in {str(one) for one in found.unreadable}
    with pytest.raises(InvalidTag):
        await read(*ids)
    keys(THREE, TWO)
    assert (await rotating.rotate_keys()).unreadable == []
    assert (await read(*ids))[1] == TOKEN


@pytest.mark.parametrize("damaged", [b"", b"short", bytes(64)], ids=["empty", "cut", "other"])
async def test_rows_that_nothing_opens_keep_no_other_one_from_its_new_key(
    keys, monkeypatch, damaged
):
    monkeypatch.setattr(rotating, "BATCH", 2)
    several = sorted([await kept_one(number) for number in range(5)])
    broken = several[:3]  # more than a batch, and before all others
    async with session_scope() as session:
        for box_id in broken:
            (await session.get_one(BoxSecret, box_id)).telegram_token_ct = damaged
    keys(TWO)
    for written in (2, 0):  # an old one stands in no later run's way, either
        found = await rotating.rotate_keys()
        assert found.done["box_secrets"] == written
        assert [one.row_id for one in found.unreadable] == broken
    assert str(found.unreadable[0]).endswith(
        "k1 is not the key it is under, or the row is damaged."
    )
    async with session_scope() as session:
        assert [await boxes.bot_token(session, one) for one in several[3:]] == [TOKEN] * 2
        left = [await session.get_one(BoxSecret, box_id) for box_id in broken]
    assert {(one.key_id, one.telegram_token_ct) for one in left} == {("k1", damaged)}


def test_the_command_names_what_it_could_not_read_and_fails(monkeypatch, capsys):
    bad = rotating.Unreadable(table="box_secrets", row_id=UUID(int=7), key_id="k9")
    found = rotating.Rotated(done={"box_secrets": 3}, unreadable=[bad])

    async def rotate(_settings):
        return found

    monkeypatch.setattr(support, "rotate_keys", rotate)
    assert cli.rotate_keys(Namespace()) == 1
    told = capsys.readouterr().out.splitlines()
    assert (
        told[0]
        == f"✗ box_secrets {UUID(int=7)}: its key k9 is not in ENCRYPTION_KEYS; put it back."
    )
    assert told[-1] == "1 rows could not be read and are as before."
    found.unreadable.clear()
    assert cli.rotate_keys(Namespace()) == 0


@pytest.mark.parametrize("setting", ["k2", "k2:short", f"{TWO},{TWO}", TWO.replace("k2", "k1")])
def test_keys_that_cannot_be_used_are_refused(keys, setting):
    keys(setting)
    with pytest.raises(SettingsError, match="ENCRYPTION_KEYS"):
        secrets.key_id()


async def test_a_code_mail_is_still_read_after_the_rotation(keys):
    await kept_secrets()
    keys(TWO)
    await rotating.rotate_keys()
    async with session_scope() as session:
        mail = (await session.exec(select(OutboxMail))).one()
    assert mail.secret_ct is not None
    assert secrets.decrypt(accounts.MAIL_SECRET, mail.secret_ct) == CODE
