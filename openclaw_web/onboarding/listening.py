"""Asking Telegram whether the owner pressed Start, with no transaction open meanwhile.

Every waiting page asks once a second; a slow Telegram must not keep the database's connections.
"""

from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import ValidationError, VendorError
from openclaw_web.integrations import telegram
from openclaw_web.integrations.telegram import BadTokenError, StartPress
from openclaw_web.onboarding import service

CONFLICT = "conflict"


async def look_for_start(visitor_token: str) -> bool:
    """See whether the owner pressed Start behind our link; `True` when something new was found.

    Raises:
        ValidationError: another program reads the bot's messages.
        VendorError: Telegram cannot be reached.
    """
    async with session_scope() as session:
        watch = await service.find_watch(session, visitor_token)
    if watch is None:
        return False
    try:
        presses = await _presses(watch.bot_token)
    except BadTokenError:
        async with session_scope() as session:
            await service.note_dead_bot(session, visitor_token)
        return True
    ours = next((one for one in presses if one.payload == watch.nonce), None)
    if ours is None:
        return False
    async with session_scope() as session:
        is_new = await service.note_start(session, visitor_token, ours)
    if is_new:
        await telegram.mark_read(watch.bot_token, ours.update_id)
    return is_new


async def _presses(bot_token: str) -> list[StartPress]:
    try:
        return await telegram.pressed_starts(bot_token)
    except VendorError as error:
        if error.code != CONFLICT:
            raise
        raise ValidationError(
            "Another program reads this bot's messages right now. End it, or use another bot."
        ) from error
