"""The addresses to which a keeper may carry one backup, one way, once: signed, and soon over."""

import base64
import hmac
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from uuid import UUID

from openclaw_web.core import secrets
from openclaw_web.core.clock import real_now
from openclaw_web.core.errors import OpenClawError

PATH = "/memory/"  # where a keeper calls, at the token proxy's address
ADDRESS_PURPOSE = "keeper-address"
SLACK = timedelta(minutes=10)
ADDRESS_LIFE = timedelta(hours=1) + SLACK  # a job may take an hour


class Way(StrEnum):
    SAVE = "save"
    RESTORE = "restore"


class AddressError(OpenClawError):
    """This address is used, over, or not for this."""


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """What a keeper needs to carry one backup one way."""

    backup_id: UUID
    way: Way
    token: str = field(repr=False)
    mark: str = ""


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What a token turned out to allow."""

    ticket: str
    most_bytes: int


def make_token(
    backup_id: UUID, way: Way, ticket: str, most_bytes: int, life: timedelta = ADDRESS_LIFE
) -> str:
    """Return a token for one backup and one way; who shows it needs nothing else."""
    until = int((real_now() + life).timestamp())
    said = f"{until}.{most_bytes}.{ticket}"
    return f"{said}.{_signature(backup_id, way, said)}"


def check_token(token: str, backup_id: UUID, way: Way) -> Allowed:
    """Say what a token allows.

    Raises:
        AddressError: it is not for this backup and way, or its time is over.
    """
    said, _, signature = token.rpartition(".")
    wanted = _signature(backup_id, way, said)
    if not hmac.compare_digest(signature.encode(), wanted.encode()):  # bytes: it takes no "é" else
        raise AddressError("This address is not for that.")
    until, most, ticket = said.split(".")
    if real_now().timestamp() > int(until):
        raise AddressError("The time of this address is over.")
    return Allowed(ticket=ticket, most_bytes=int(most))


def _signature(backup_id: UUID, way: Way, said: str) -> str:
    mac = secrets.fingerprint(ADDRESS_PURPOSE, f"{way.value}:{backup_id}:{said}")
    return base64.urlsafe_b64encode(mac).decode().rstrip("=")
