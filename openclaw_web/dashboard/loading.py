"""How every page of a customer loads: who asks, their rows, and one sentence when it fails."""

import logging
from typing import ClassVar
from uuid import UUID

import reflex as rx
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.state import CUSTOMER, AuthState
from openclaw_web.core.database import session_scope
from openclaw_web.ui.showing import show

logger = logging.getLogger(__name__)

FAILED_TO_LOAD = (
    "This page could not be loaded. We are looking into it; please try again in a moment."
)


class Loaded(AuthState, mixin=True):
    """A page's `load` and `refresh`; the page itself only says what it shows."""

    requires: ClassVar[str] = CUSTOMER

    is_loaded: bool = False
    error: str = ""

    @rx.event
    async def load(self) -> None:
        """Show everything anew."""
        await self._look()

    @rx.event
    async def refresh(self, _date: str = "") -> None:
        """Look again, as the page does every few seconds."""
        await self._look()

    async def _look(self) -> None:
        principal = await self.principal()
        if principal is None:
            return
        try:
            async with session_scope() as session:
                await self._show(session, principal.customer_id)
            show(self, error="", is_loaded=True)
        except Exception:
            page = type(self).__name__
            logger.exception("%s failed.", page, extra={"customer_id": principal.customer_id})
            show(self, error=FAILED_TO_LOAD, is_loaded=True)

    async def _show(self, session: AsyncSession, customer_id: UUID) -> None:
        """Put the customer's rows into the page's variables."""
        raise NotImplementedError
