"""Keys that encrypt at rest: several may read, the newest writes, a rotation brings all to it."""

import base64
from dataclasses import replace

import pytest
from cryptography.exceptions import InvalidTag
from sqlmodel import select

from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.models import OutboxMail
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.memory import backups
from openclaw_web.boxes.models import BoxBackup, BoxSecret
from openclaw_web.core import secrets
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import SettingsError
from openclaw_web.core.settings import settings
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
    done = await rotating.rotate_keys()
    assert (done["box_secrets"], done["box_backups"], done["email_outbox"]) == (1, 1, 1)
    assert await read(*ids) == (before[0], TOKEN, {"k2"})
    assert sum((await rotating.rotate_keys()).values()) == 0


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
    assert await rotating._rotate_batch(rotating.SEALED[0]) == 1  # noqa: SLF001 - then it ended
    assert (await rotating.rotate_keys())["box_secrets"] == 2
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
    with pytest.raises(rotating.UnreadableError, match="key k2"):
        await rotating.rotate_keys()
    with pytest.raises(InvalidTag):
        await read(*ids)
    keys(THREE, TWO)
    await rotating.rotate_keys()
    assert (await read(*ids))[1] == TOKEN


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
