"""One completion: read, admitted, and sent on to a provider.

As far as nothing is to be waited for this happens at once, without a task's turn.
"""

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

from openclaw_web.boxes.openclaw_config import GENERATION_HEADER
from openclaw_web.gateway import errors, polite, wire
from openclaw_web.gateway.admission import Admission, Admitted, Place
from openclaw_web.gateway.alerts import Alerts, SpoolWatch
from openclaw_web.gateway.callers import BOX
from openclaw_web.gateway.calls import Call
from openclaw_web.gateway.credentials import Account, Directory, Holder
from openclaw_web.gateway.direct import DirectCall
from openclaw_web.gateway.errors import BadRequestError, Form, PoliteError
from openclaw_web.gateway.exchange import Exchange, Tally
from openclaw_web.gateway.forwarding import Forwarder
from openclaw_web.gateway.keeping import Keeper
from openclaw_web.gateway.passing import Passing
from openclaw_web.gateway.patience import Patience
from openclaw_web.gateway.providers import NoRouteError, Providers
from openclaw_web.gateway.settling import Settler
from openclaw_web.gateway.wire import Request
from openclaw_web.integrations.upstream import UnsafeHeaderError
from openclaw_web.metering.meters import Meters
from openclaw_web.metering.models import TokenKind

_GENERATION: Final = GENERATION_HEADER.lower().encode()


@dataclass(frozen=True, kw_only=True)
class Running:
    """What exists between start and stop."""

    directory: Directory
    keeper: Keeper
    meters: Meters
    settler: Settler
    admission: Admission
    tally: Tally
    forwarder: Forwarder
    passing: Passing
    providers: Providers
    alerts: Alerts
    spool_watch: SpoolWatch
    patience: Patience


def take(running: Running, call: DirectCall, form: Form) -> Coroutine[Any, Any, None] | None:
    """Answer a request that is all here, as far as that can be done at once; return the rest.

    Raises:
        RefusalError: it is not forwarded.
    """
    running.patience.end(call)
    holder = running.directory.recognise(call.head)
    if holder is None:
        return complete(running, call, form)
    return begin(running, call, form, holder, call.taken())


async def complete(running: Running, call: Call, form: Form) -> None:
    """Read, admit and forward one completion."""
    holder = await running.directory.identify(call.head)
    with running.admission.reading(*holder):
        body = await call.body(running.patience)
    rest = begin(running, call, form, holder, body)
    if rest is not None:
        await rest


def begin(
    running: Running, call: Call, form: Form, holder: Holder, body: bytes
) -> Coroutine[Any, Any, None] | None:
    """Read, admit and forward as far as nothing is to be waited for; return what is left to do.

    Raises:
        RefusalError: it is not forwarded.
    """
    caller, account = holder
    request = wire.read_request(body, form, running.providers.model_for)
    try:
        admitted = running.admission.admit(caller, account, request)
    except PoliteError as refusal:
        return _say(call, holder, request, refusal)
    if isinstance(admitted, Place):
        return _complete_near(running, call, holder, request, admitted)
    return _forward(running, call, account, request, admitted)


def _forward(
    running: Running, call: Call, account: Account, request: Request, admitted: Admitted
) -> Coroutine[Any, Any, None] | None:
    call.extra = errors.token_warning(used=account.used, limit=account.limit)
    exchange = Exchange(call, request, admitted, _generation(call, admitted.caller.kind))
    try:
        if isinstance(call, DirectCall) and running.passing.begin(call, exchange):
            return None
    except (NoRouteError, UnsafeHeaderError) as error:
        running.tally.release(exchange)
        raise BadRequestError(str(error)) from error
    except Exception:
        running.tally.release(exchange)
        raise
    return running.forwarder.forward(exchange)


async def _complete_near(
    running: Running, call: Call, holder: Holder, request: Request, place: Place
) -> None:
    """Ask the other processes too, then forward."""
    caller, account = holder
    try:
        admitted = await running.admission.admit_near(place, caller, account, request)
    except PoliteError as refusal:
        await _say(call, holder, request, refusal)
        return
    rest = _forward(running, call, account, request, admitted)
    if rest is not None:
        await rest


async def _say(call: Call, holder: Holder, request: Request, refusal: PoliteError) -> None:
    """Let the assistant itself say why it does not work, where the box wants that."""
    caller, _ = holder
    if caller.kind is not BOX or not caller.is_polite:
        raise refusal
    said = polite.answer(refusal, request, language=caller.language)
    await call.answer(said.body, content_type=said.content_type)


def _generation(call: Call, kind: TokenKind) -> int | None:
    """Return which settings its box says that it has; a customer's program cannot say."""
    if kind is not BOX:
        return None
    value = call.head.headers.get(_GENERATION, b"")
    return int(value) if value.isdigit() and len(value) < len(str(2**63)) else None
