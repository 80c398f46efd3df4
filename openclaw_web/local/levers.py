"""The brakes, the switches and the refunds that an operator decides about, from a shell."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts import service as accounts
from openclaw_web.boxes.memory.listing import BackupView
from openclaw_web.core.database import close_database, open_database, session_scope
from openclaw_web.core.errors import NotFoundError
from openclaw_web.core.settings import Settings
from openclaw_web.integrations.redis import close_redis, open_redis
from openclaw_web.workflows import brakes, memory_acts, operations, refunding
from openclaw_web.workflows.brakes import Brake, Switch
from openclaw_web.workflows.operations import By

BY = By(reason="").name
CLUSTER_ACTS = {
    "accept": operations.accept_cluster,
    "allow-drift": operations.allow_drift_repairs,
    "end-incident": operations.end_incident,
}


async def show(chosen: Settings) -> list[str]:
    """Return a line for each brake and each switch."""
    async with one_act(chosen) as session:
        found = await brakes.any_customers_brakes(session)
        switches = {switch: await brakes.is_on(session, switch) for switch in Switch}
    return [
        *(
            f"{one.name}: {one.passed} of {one.limit}"
            + (f", ON since {one.tripped_at:%Y-%m-%d %H:%M} UTC" if one.tripped_at else "")
            for one in found
        ),
        *(f"{switch.value}: {'on' if is_on else 'off'}" for switch, is_on in switches.items()),
    ]


async def release(chosen: Settings, name: str, *, reason: str) -> bool:
    """Let acts pass a brake again; `False`: it was not on."""
    async with one_act(chosen) as session:
        return await brakes.release(session, Brake(name), by=BY, reason=reason)


async def turn(chosen: Settings, name: str, *, is_on: bool, reason: str) -> None:
    async with one_act(chosen) as session:
        await brakes.turn(session, Switch(name), is_on=is_on, by=BY, reason=reason)


async def act_on_cluster(chosen: Settings, act: str, cluster: str, *, reason: str) -> None:
    """Do what only a person may decide about a whole cluster.

    Raises:
        NotFoundError: there is no such cluster.
        ValidationError: no reason was given.
    """
    async with one_act(chosen) as session:
        await CLUSTER_ACTS[act](session, cluster, by=By(reason=reason))


async def refund(chosen: Settings, email: str, *, reason: str, ends_now: bool) -> None:
    """Have a customer's latest payment given back; the worker does it within half a minute.

    Raises:
        NotFoundError: nobody has this address, or they have paid for nothing.
    """
    async with one_act(chosen) as session:
        customer_id = await customer_of(session, email)
        await refunding.request_refund(
            session, customer_id, by=BY, reason=reason, ends_now=ends_now
        )


async def memory(chosen: Settings, email: str, backup: str, *, reason: str) -> list[str]:
    """List the backups of a customer's boxes, or have one put into the box of now.

    Raises:
        NotFoundError: nobody has this address, or there is no such box or backup of theirs.
        ValidationError: it cannot be used, or no reason was given.
    """
    async with one_act(chosen) as session:
        customer_id = await customer_of(session, email)
        found = await memory_acts.list_backups(session, customer_id)
        if not backup:
            return [_line(one) for one in found] or ["There is none."]
        wanted = next((one.id for one in found if str(one.id) == backup), None)
        if wanted is None:
            raise NotFoundError("There is no such backup of theirs; without one, all are listed.")
        await memory_acts.bring_back(session, customer_id, wanted, by=By(reason=reason))
    return ["The worker brings it back, into a paused assistant at its next start."]


def _line(one: BackupView) -> str:
    whose = "  of a former box" if one.is_former else ""
    use = "" if one.is_usable else "  cannot be used"
    return f"{one.id}  {one.made_at:%Y-%m-%d %H:%M} UTC  {one.reason}{whose}{use}"


async def customer_of(session: AsyncSession, email: str) -> UUID:
    customer = await accounts.find_customer_by_email(session, email)
    if customer is None:
        raise NotFoundError(f"Nobody is known as {email}.")
    return customer.id


@asynccontextmanager
async def one_act(chosen: Settings) -> AsyncGenerator[AsyncSession]:
    async with opened(chosen), session_scope() as session:
        yield session


@asynccontextmanager
async def opened(chosen: Settings) -> AsyncGenerator[None]:
    open_database(chosen.database_url)
    open_redis(chosen.redis_url)
    try:
        yield
    finally:
        await close_redis()
        await close_database()
