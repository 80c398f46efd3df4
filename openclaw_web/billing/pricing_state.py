"""What the public page of prices knows of its reader: who has a plan already, and which."""

import logging

import reflex as rx

from openclaw_web.accounts.state import AuthState
from openclaw_web.billing import queries
from openclaw_web.core.database import session_scope
from openclaw_web.ui.showing import show

logger = logging.getLogger(__name__)


class PricingView(rx.State):
    """The plan of whoever reads; empty for visitors, who may read it all the same."""

    tier: str = ""

    @rx.event
    async def load(self) -> None:
        auth = await self.get_state(AuthState)
        try:
            principal = await auth.principal()
            found = None
            if principal is not None:
                async with session_scope() as session:
                    found = await queries.find_live_subscription(session, principal.customer_id)
            show(self, tier=found.tier.value if found else "")
        except Exception:
            logger.exception("The page of prices does not know its reader.")
            show(self, tier="")
