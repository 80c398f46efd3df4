"""Fetching what somebody watches of a box: the worker's side of `boxes/windows.py`."""

import asyncio
import base64
import contextlib
import logging
import re
from collections.abc import Sequence
from functools import partial
from urllib.parse import quote
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.boxes import manifests, queries, windows
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.boxes.windows import Happening, Line, Seen, Window
from openclaw_web.core.clock import real_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import NotFoundError, VendorError
from openclaw_web.core.logs import REDACTED, redact
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.integrations.cluster_objects import EventView, PodView

logger = logging.getLogger(__name__)

EVERY_SECONDS = 2.0
LINES = 200
EVENTS = 30
LINE_CHARACTERS = 1_000
READ_CHARACTERS = 4_000  # of a line; what the cut may have halved is not shown
CUT_CHARACTERS = 500
VIEW_CHARACTERS = 100_000
NAME_LABEL = "app.kubernetes.io/name"  # helpers of ours may run beside the assistant
# What terminals understand and pages do not: colours, and characters without a picture.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-_]|[\x00-\x08\x0b-\x1f\x7f]")
# Linear whatever a box writes: each run of letters is looked at from its beginning only.
_KEYS = re.compile(
    r"\bsk[-_][A-Za-z0-9_-]{12,}"  # model vendors' keys
    r"|\b(?:AKIA[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{30,}|gh[opsur]_[A-Za-z0-9]{30,}|xox[a-z]-[\w-]{10,})"
    r"|(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_.-]+"  # signed web tokens
)
_NAMED = re.compile(
    r"(?i)(?P<name>(?:password|passwd|secret|token|api_?key|authorization)[\"']?\s{0,3}[=:]\s{0,3}"
    r"(?:Basic\s|Bearer\s)?[\"']?)[^\s,;\"'}]{3,}"
)


async def serve_box(cluster: Cluster, box_id: UUID, *, cluster_name: str, owner: str) -> None:
    """Keep the view of one box fresh until nobody asks; one worker at a time does it."""
    try:
        while await windows.is_watched(box_id, owner):
            window = await look(cluster, box_id, cluster_name=cluster_name)
            if window is None:
                return
            await windows.leave_view(box_id, window)
            await asyncio.sleep(EVERY_SECONDS)
    except Exception:
        logger.exception("A look into a box failed.", extra={"box_id": box_id})
    finally:
        await windows.let_go(box_id, owner)


async def look(cluster: Cluster, box_id: UUID, *, cluster_name: str) -> Window | None:
    """Return what there is to see now; nothing for a box that is gone or lives elsewhere."""
    async with session_scope() as session:
        box = await queries.get_any_box(session, box_id)
        if box.cluster != cluster_name or box.status is BoxStatus.DESTROYED:
            return None
        secrets = await _secrets(session, box_id)
        namespace = box.k8s_namespace
    now = real_now().isoformat(timespec="seconds")
    try:
        pod = _newest(await cluster.pods(namespace))
        found = await cluster.events(namespace)
        text, before = await _texts(cluster, pod) if pod else ("", "")
    except VendorError as error:
        if error.code != "not_found":
            logger.info("No look into a box: %s", error, extra={"box_id": box_id})
            return Window(seen=Seen.UNREACHABLE, at=now)
        pod, found, text, before = None, [], "", ""
    return Window(
        seen=Seen.OK if pod else Seen.NO_POD,
        at=now,
        # Reading takes a while, and jobs and heartbeats wait for nobody's log.
        lines=await asyncio.to_thread(lines_of, text, secrets),
        before=await asyncio.to_thread(lines_of, before, secrets),
        events=_happenings(found, secrets),
    )


async def _texts(cluster: Cluster, pod: PodView) -> tuple[str, str]:
    """Return what the pod writes, and what it wrote before it crashed."""
    read = partial(
        cluster.logs, pod.namespace, pod.name, container=manifests.NAME, tail_lines=LINES
    )
    return await read(), await read(is_previous=True) if pod.restarts else ""


def _newest(pods: Sequence[PodView]) -> PodView | None:
    """Return the assistant's pod: the one that stays, if one is going and one is coming."""
    ours = [pod for pod in pods if pod.labels.get(NAME_LABEL) == manifests.NAME]
    return min(ours, key=lambda pod: (pod.is_terminating, not pod.is_ready), default=None)


async def _secrets(session: AsyncSession, box_id: UUID) -> tuple[str, ...]:
    """Return what must never be shown, whatever it looks like."""
    known = [boxes.gateway_token(box_id)]
    with contextlib.suppress(NotFoundError):
        known.append(await boxes.bot_token(session, box_id))
    return tuple(form for one in known for form in known_forms(one))


def known_forms(secret: str) -> tuple[str, ...]:
    """Return how a secret may stand in a log: as it is, in an address, or encoded."""
    return secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode().rstrip("=")


def lines_of(text: str, secrets: Sequence[str]) -> tuple[Line, ...]:
    """Return the newest lines that fit, without known secrets and what only terminals show."""
    found: list[Line] = []
    room = VIEW_CHARACTERS
    for raw in reversed(text.splitlines()[-LINES:]):
        at, _, rest = raw.partition(" ")
        shown = Line(at=at, text=_shown(rest, secrets))
        room -= len(shown.text)
        if room < 0:
            break
        found.append(shown)
    return tuple(reversed(found))


def _happenings(events: Sequence[EventView], secrets: Sequence[str]) -> tuple[Happening, ...]:
    return tuple(
        Happening(
            at=one.at,
            is_warning=one.is_warning,
            text=_shown(
                f"{one.reason}: {one.message}" + (f" ({one.count} times)" if one.count > 1 else ""),
                secrets,
            ),
        )
        for one in events[:EVENTS]
    )


def _shown(text: str, secrets: Sequence[str]) -> str:
    """Take known secrets out before it is cut: half a secret has no form to be known by."""
    plain = _CONTROL.sub("", text[:READ_CHARACTERS])
    for secret in secrets:
        plain = plain.replace(secret, REDACTED)
    plain = _KEYS.sub(REDACTED, redact(plain))
    plain = _NAMED.sub(rf"\g<name>{REDACTED}", plain)
    if len(text) > READ_CHARACTERS:
        plain = plain[:-CUT_CHARACTERS]
    return plain if len(plain) <= LINE_CHARACTERS else f"{plain[:LINE_CHARACTERS]}…"
