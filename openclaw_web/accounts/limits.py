"""How often somebody may try to sign in, counted in the audit log: it outlives Redis."""

import ipaddress
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import INET
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.accounts.models import AuditLog, SignInCode
from openclaw_web.core.clock import real_now
from openclaw_web.core.secrets import fingerprint
from openclaw_web.core.settings import settings

WINDOW = timedelta(minutes=15)
CODES_PER_ADDRESS = 5
CODES_PER_IP = 20
FAILURES_PER_IP = 20
FAILURES_PER_ACCOUNT_AND_IP = 5
FAILURES_PER_ACCOUNT = 100  # from everywhere: a botnet; a mailed code still gets the owner in
IPV6_CUSTOMER_BITS = 64  # what one household usually gets

CODE_SENT = "sign_in.code_sent"
FAILED = "sign_in.failed"


def client_address(ip: str | None) -> str | None:
    """Return an address as the database takes it, or `None` for what is none."""
    try:
        return str(ipaddress.ip_address(ip)) if ip else None
    except ValueError:
        return None


def account_mark(email: str) -> str:
    """Return what the audit log calls an address, known to us or not, without showing it."""
    return fingerprint("sign-in account", email).hex()[:32]


async def may_send_code(session: AsyncSession, *, email: str, ip: str | None) -> bool:
    """Say whether another code may be mailed; concurrent requests wait for each other here."""
    await _one_at_a_time(session, f"ip:{ip}", f"code:{email}")
    sent = await session.exec(
        select(sa.func.count()).where(
            SignInCode.email == email, col(SignInCode.created_at) > real_now() - WINDOW
        )
    )
    if sent.one() >= CODES_PER_ADDRESS:
        return False
    return _is_exempt(ip) or await _count(session, CODE_SENT, ip=ip) < CODES_PER_IP


async def may_try_code(session: AsyncSession, *, ip: str | None) -> bool:
    """Say whether this network address may guess; each code has its own count besides."""
    return _is_exempt(ip) or await _count(session, FAILED, ip=ip) < FAILURES_PER_IP


async def may_try_password(session: AsyncSession, *, mark: str, ip: str | None) -> bool:
    """Say whether a password may be tried; concurrent guesses wait for each other here."""
    await _one_at_a_time(session, f"password:{mark}:{ip}")
    if await _count(session, FAILED, mark=mark, ip=ip) >= FAILURES_PER_ACCOUNT_AND_IP:
        return False
    if await _count(session, FAILED, mark=mark) >= FAILURES_PER_ACCOUNT:
        return False
    return await may_try_code(session, ip=ip)


async def _count(
    session: AsyncSession, action: str, *, mark: str | None = None, ip: str | None = None
) -> int:
    wanted = select(sa.func.count()).where(
        AuditLog.action == action, col(AuditLog.created_at) > real_now() - WINDOW
    )
    if mark is not None:
        wanted = wanted.where(AuditLog.resource_id == mark)
    if ip is not None:
        wanted = wanted.where(col(AuditLog.ip_address).op("<<=")(sa.cast(_network(ip), INET)))
    return (await session.exec(wanted)).one()


async def _one_at_a_time(session: AsyncSession, *names: str) -> None:
    for name in names:
        await session.exec(select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(name, 0))))


def _network(ip: str) -> str:
    address = ipaddress.ip_address(ip)
    is_ipv6 = isinstance(address, ipaddress.IPv6Address)
    bits = IPV6_CUSTOMER_BITS if is_ipv6 else address.max_prefixlen
    return str(ipaddress.ip_network((address, bits), strict=False))


def _is_exempt(ip: str | None) -> bool:
    """On a laptop everybody is 127.0.0.1; an address that nobody told us cannot be counted."""
    return ip is None or (not settings().is_production and ipaddress.ip_address(ip).is_loopback)
