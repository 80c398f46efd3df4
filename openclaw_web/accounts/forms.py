"""Signing in and out: plain HTML forms, because only a real POST can set an HttpOnly cookie.

Every answer is a 303 back to a page of ours. What went wrong travels as a short code in the
address; `messages.sentence_of` turns it into a sentence. Fields: `next` is where to go once signed
in, `back` is the page that the form stands on (default: the sign-in page).
"""

from collections.abc import Mapping

from fastapi import APIRouter, Request, Response, status
from fastapi.responses import RedirectResponse

from openclaw_web.accounts import cookies, origins
from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.models import STAFF_ROLES
from openclaw_web.accounts.posting import NO_STORE, Fields
from openclaw_web.core.database import session_scope

router = APIRouter(prefix="/auth")

LOGIN_PAGE = "/login"
HOME_PAGE = "/home"
ADMIN_PAGE = "/admin"


@router.post("/send-code")
async def send_code(request: Request, fields: Fields) -> Response:
    """Mail a code, and show the page where it is typed."""
    email = fields.get("email", "")
    try:
        async with session_scope() as session:
            await accounts.request_code(session, email, ip=_ip(request))
    except accounts.SignInError as error:
        return _back(fields, step="", email=email, error=error.code)
    return _back(fields, step="code", email=email, error="", sent="1")


@router.post("/code")
async def confirm_code(request: Request, fields: Fields) -> Response:
    """Sign in with a mailed code."""
    email = fields.get("email", "")
    async with session_scope() as session:
        outcome = await accounts.confirm_code(
            session,
            email,
            fields.get("code", ""),
            ip=_ip(request),
            user_agent=request.headers.get("user-agent"),
        )
    if isinstance(outcome, accounts.Refused):
        return _back(fields, step="code", email=email, error=outcome.code)
    return await _welcome(request, fields, outcome)


@router.post("/password")
async def confirm_password(request: Request, fields: Fields) -> Response:
    """Sign in with a password."""
    email = fields.get("email", "")
    async with session_scope() as session:
        outcome = await accounts.sign_in_with_password(
            session,
            email,
            fields.get("password", ""),
            ip=_ip(request),
            user_agent=request.headers.get("user-agent"),
        )
    if isinstance(outcome, accounts.Refused):
        return _back(fields, step="password", email=email, error=outcome.code)
    return await _welcome(request, fields, outcome)


@router.post("/logout")
async def log_out(request: Request, fields: Fields) -> Response:
    """End the session and make the browser forget what it stored for us."""
    await _end_session(request)
    answer = _redirect(origins.local_path(fields.get("next", ""), default="/"))
    cookies.remove_cookie(answer, cookies.SESSION_COOKIE)
    cookies.remove_cookie(answer, cookies.VISITOR_COOKIE)
    answer.headers["Clear-Site-Data"] = '"storage"'
    return answer


async def _welcome(
    request: Request, fields: Mapping[str, str], signed_in: accounts.SignedIn
) -> Response:
    """Give the browser its new session; the one that it may have had ends."""
    await _end_session(request)
    home = ADMIN_PAGE if signed_in.role in STAFF_ROLES else HOME_PAGE
    answer = _redirect(origins.local_path(fields.get("next", ""), default=home))
    seconds = int(accounts.SESSION_LIFE.total_seconds())
    cookies.set_cookie(answer, cookies.SESSION_COOKIE, signed_in.token, seconds=seconds)
    return answer


async def _end_session(request: Request) -> None:
    token = cookies.session_token(request.headers.get("cookie", ""))
    if token is not None:
        async with session_scope() as session:
            await accounts.end_session(session, token)


def _back(fields: Mapping[str, str], **values: str) -> Response:
    page = origins.local_path(fields.get("back", ""), default=LOGIN_PAGE)
    target = origins.local_path(fields.get("next", ""), default="")
    return _redirect(origins.with_query(page, **{"sent": "", "next": target, **values}))


def _redirect(path: str) -> Response:
    return RedirectResponse(path, status_code=status.HTTP_303_SEE_OTHER, headers=NO_STORE)


def _ip(request: Request) -> str | None:
    return request.client.host if request.client else None
