"""Giving a box another bot: a plain HTML form, so that its token never enters a page's state."""

from fastapi import APIRouter, Request, Response, status
from fastapi.responses import RedirectResponse

from openclaw_web.accounts import cookies, origins
from openclaw_web.accounts import queries as accounts
from openclaw_web.accounts.posting import NO_STORE, Fields
from openclaw_web.accounts.queries import Principal
from openclaw_web.boxes import bots
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import NotFoundError, ValidationError, VendorError
from openclaw_web.workflows import box_acts
from openclaw_web.workflows.api_access import By

router = APIRouter()

PAGE = "/box"
LOGIN_PAGE = "/login?next=%2Fbox"


@router.post("/box/bot")
async def replace_bot(request: Request, fields: Fields) -> Response:
    """Check a token with Telegram and give it to the box; what went wrong is a word in the address.

    No transaction is open while Telegram is asked.
    """
    principal = await _principal(request)
    if principal is None:
        return _to(LOGIN_PAGE)
    by = By(
        customer_id=principal.customer_id,
        ip=request.client.host if request.client else None,
        user_agent=request.headers.get("user-agent"),
    )
    problem = await _replace(fields.get("bot_token", ""), by)
    return _to(origins.with_query(PAGE, bot="" if problem else "replaced", error=problem))


async def _replace(text: str, by: By) -> str:
    """Return nothing, or the word for what is wrong with this bot."""
    try:
        token = bots.token_in(text)
        async with session_scope() as session:
            await box_acts.check_bot(session, token, by=by)
        bot = await bots.identified(token)
        async with session_scope() as session:
            await box_acts.replace_bot(session, bot, by=by)
    except NotFoundError:
        return "no_box"
    except bots.BotRefusedError as error:
        async with session_scope() as session:
            await box_acts.note_refused_bot(session, by=by)
        return error.word
    except ValidationError:
        return "restarts"
    except VendorError:
        return "telegram"
    return ""


async def _principal(request: Request) -> Principal | None:
    token = cookies.session_token(request.headers.get("cookie", ""))
    if token is None:
        return None
    async with session_scope() as session:
        return await accounts.find_principal(session, token)


def _to(path: str) -> Response:
    return RedirectResponse(path, status.HTTP_303_SEE_OTHER, headers=NO_STORE)
