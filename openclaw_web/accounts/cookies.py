"""The cookies that we set: who is signed in, and which visitor is in the onboarding chat."""

from starlette.requests import cookie_parser
from starlette.responses import Response

from openclaw_web.core.settings import settings

SESSION_COOKIE = "oc_session"
VISITOR_COOKIE = "oc_start"
HOST_PREFIX = "__Host-"  # the browser then insists on Secure, Path=/ and no Domain
LONGEST_VALUE = 256


def cookie_name(name: str) -> str:
    """Return the name under which we set a cookie: prefixed when we are served over https."""
    return f"{HOST_PREFIX}{name}" if settings().cookies_are_secure else name


def set_cookie(response: Response, name: str, value: str, *, seconds: int) -> None:
    """Set a cookie that scripts cannot read and that other sites' requests do not carry."""
    response.set_cookie(
        cookie_name(name),
        value,
        max_age=seconds,
        path="/",
        secure=settings().cookies_are_secure,
        httponly=True,
        samesite="lax",
    )


def remove_cookie(response: Response, name: str) -> None:
    response.delete_cookie(
        cookie_name(name),
        path="/",
        secure=settings().cookies_are_secure,
        httponly=True,
        samesite="lax",
    )


def read_cookie(header: str, name: str) -> str | None:
    """Return a cookie's value; `None` when it is missing, empty or oversized."""
    value = cookie_parser(header).get(cookie_name(name), "")
    return value if 0 < len(value) <= LONGEST_VALUE else None


def session_token(header: str) -> str | None:
    """Return the session token that a Cookie header carries."""
    return read_cookie(header, SESSION_COOKIE)


def visitor_token(header: str) -> str | None:
    """Return the onboarding visitor's token that a Cookie header carries."""
    return read_cookie(header, VISITOR_COOKIE)
