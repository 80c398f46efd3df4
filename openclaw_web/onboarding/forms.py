"""The cookie that remembers a visitor's chat.

Only an answer of ours can set one that scripts cannot read.
"""

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse

from openclaw_web.accounts import cookies
from openclaw_web.billing.models import Tier
from openclaw_web.core.security import new_token

router = APIRouter()

SEE_OTHER = 303
VISITOR_SECONDS = 30 * 86_400  # an abandoned chat can be revived for 30 days


@router.get("/start/begin")
async def begin(request: Request, tier: str = "", *, fresh: bool = False) -> RedirectResponse:
    """Give the browser a visitor's cookie, unless it has one, and go to the chat.

    `fresh` leaves the old chat behind; a link on somebody else's site cannot ask for that.
    """
    query = f"&tier={tier}" if tier in set(Tier) else ""
    response = RedirectResponse(f"/start?begun=1{query}", status_code=SEE_OTHER)
    response.headers["Cache-Control"] = "no-store"
    is_foreign = request.headers.get("sec-fetch-site") in {"cross-site", "same-site"}
    has_one = bool(cookies.visitor_token(request.headers.get("cookie", "")))
    if not has_one or (fresh and not is_foreign):
        cookies.set_cookie(response, cookies.VISITOR_COOKIE, new_token(), seconds=VISITOR_SECONDS)
    return response
