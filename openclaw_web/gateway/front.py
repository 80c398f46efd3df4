"""Who answers what boxes and programs ask: the OpenAI and the Anthropic API, as an ASGI app."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import msgspec

from openclaw_web.billing.tiers import plan_of
from openclaw_web.core import compiled
from openclaw_web.core.settings import settings
from openclaw_web.gateway import listing
from openclaw_web.gateway.admission import Admission
from openclaw_web.gateway.alerts import Alerts, SpoolWatch
from openclaw_web.gateway.calls import AsgiCall, Call, Receive, Send
from openclaw_web.gateway.completing import Running, complete, take
from openclaw_web.gateway.credentials import Account, Directory
from openclaw_web.gateway.direct import DirectCall
from openclaw_web.gateway.errors import (
    Form,
    NotFoundError,
    RefusalError,
    UnavailableError,
)
from openclaw_web.gateway.exchange import Tally
from openclaw_web.gateway.forwarding import Forwarder
from openclaw_web.gateway.heads import Scope
from openclaw_web.gateway.keeping import Keeper
from openclaw_web.gateway.passing import Passing
from openclaw_web.gateway.patience import Patience, Waiter
from openclaw_web.gateway.providers import Providers
from openclaw_web.gateway.settling import Settler
from openclaw_web.gateway.stopping import LAPTOP, Budget, stopping
from openclaw_web.metering.meters import Meters

logger = logging.getLogger(__name__)

SPOOL = "spool"
MODELS = "/v1/models"
MESSAGES = "/v1/messages"

_FORMS = {"/v1/chat/completions": Form.OPENAI, MESSAGES: Form.ANTHROPIC}
_ANTHROPIC_VERSION = b"anthropic-version"


class Proxy:
    """The app. It needs an open database and Redis, and `start` before the first request."""

    def __init__(self) -> None:
        self._running: Running | None = None

    async def start(self) -> None:
        logger.info("The token proxy runs %s.", "compiled" if compiled.is_used() else "as written")
        alerts = Alerts()
        providers = Providers.of_settings(settings(), on_change=alerts.note)
        alerts.start_anew(providers.subjects())
        directory = Directory()
        meters = Meters()
        await meters.start()
        settler = Settler(directory, meters, settings().home / SPOOL)
        admission = Admission(directory, settler, meters)
        patience = Patience()
        patience.start()
        tally = Tally(settler, admission)
        forwarder = Forwarder(providers, tally, patience)
        passing = Passing(providers, tally, patience, forwarder)
        keeper = Keeper(directory)
        keeper.start()
        spool_watch = SpoolWatch(settings().home / SPOOL)
        spool_watch.start()
        self._running = Running(
            directory=directory,
            keeper=keeper,
            meters=meters,
            settler=settler,
            admission=admission,
            tally=tally,
            forwarder=forwarder,
            passing=passing,
            providers=providers,
            alerts=alerts,
            spool_watch=spool_watch,
            patience=patience,
        )

    async def stop(self, within: Budget = LAPTOP) -> None:
        """Take no more requests, finish abandoned answers and write the last events."""
        running, self._running = self._running, None
        if running is not None:
            running.passing.stop()
            await running.settler.stop(within)
            closing = asyncio.create_task(_close(running))
            await asyncio.wait({closing}, timeout=within.rest)
            if closing.done():
                closing.result()
            else:
                logger.warning("Not everything could be closed in time; nothing is lost by that.")
                closing.cancel()

    async def flush(self) -> None:
        """Write all that is settled now, without waiting for the next batch."""
        if self._running is not None:
            await self._running.settler.flush()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        call = AsgiCall(scope, receive, send)
        await self.watch_over(call, self._answer(call))

    def expect(self, waiter: Waiter) -> None:
        if self._running is not None:
            self._running.patience.begin(waiter)

    def drop(self, waiter: Waiter) -> None:
        if self._running is not None:
            self._running.patience.end(waiter)

    def refuse(self, call: DirectCall, refusal: RefusalError) -> None:
        call.run(call.refuse(refusal, _form(call)))

    def take(self, call: DirectCall) -> None:
        """Answer a request that is all here, without a task if nothing is to be waited for."""
        try:
            rest = self._take(call)
            if rest is not None:
                call.run(rest)
        except RefusalError as refusal:
            self.refuse(call, refusal)
        except Exception:
            logger.exception("A request failed.", extra={"request_id": call.request_id})
            self.refuse(call, _our_fault())

    def _take(self, call: DirectCall) -> Coroutine[Any, Any, None] | None:
        """Answer as far as nothing is to be waited for; return what is left to do."""
        running = self._running
        if running is None:
            return self._answer(call)
        return take(running, call, _FORMS[call.head.path])

    async def watch_over(self, call: Call, answering: Coroutine[Any, Any, None]) -> None:
        try:
            await answering
        except RefusalError as refusal:
            await call.refuse(refusal, _form(call))
        except asyncio.CancelledError:  # by the server, which stops
            if call.has_begun:
                raise
            await call.refuse(stopping(), _form(call))
        except Exception:
            logger.exception("A proxied request failed.", extra={"request_id": call.request_id})
            if call.has_begun:
                raise  # the server cuts the connection: half an answer must not look whole
            await call.refuse(_our_fault(), _form(call))

    async def _answer(self, call: Call) -> None:
        running = self._running
        if running is None:
            raise UnavailableError("The proxy is starting or stopping.")
        method, path = call.head.scope["method"], call.head.path
        form = _FORMS.get(path)
        if form is not None and method == "POST":
            await complete(running, call, form)
        elif method != "GET":
            raise NotFoundError(f"There is no {method} {call.head.scope['path']}.")
        elif path == "/healthz":
            await _reply(call, {"status": "ok"})
        elif path == MODELS or _model_name(path):
            _, account = await running.directory.identify(call.head)
            await _reply(call, _models(account, call))
        elif path == "/v1/key":
            _, account = await running.directory.identify(call.head)
            await _reply(call, await _key(running, account))
        else:
            raise NotFoundError(f"There is no {method} {call.head.scope['path']}.")


async def _close(running: Running) -> None:
    await running.providers.close()
    await running.alerts.stop()
    await running.patience.stop()
    await running.keeper.stop()
    await running.meters.stop()
    await running.spool_watch.stop()


def _our_fault() -> RefusalError:
    return UnavailableError("Something went wrong on our side.", status=500)


def _form(call: Call) -> Form:
    """Return which API is spoken; both have a list of models, and only one of them a version."""
    if call.head.path.startswith(MODELS) and _ANTHROPIC_VERSION in call.head.headers:
        return Form.ANTHROPIC
    return Form.ANTHROPIC if call.head.path.startswith(MESSAGES) else Form.OPENAI


def _models(account: Account, call: Call) -> dict[str, Any]:
    """List the tier's models, or describe one."""
    names = plan_of(account.plan.tier).models if account.plan is not None else ()
    form = _form(call)
    if name := _model_name(call.head.path):
        return listing.model(names, name, form)
    return listing.models(names, form, call.head.scope["query_string"])


def _model_name(path: str) -> str:
    return path.removeprefix(f"{MODELS}/") if path.startswith(f"{MODELS}/") else ""


async def _key(running: Running, account: Account) -> dict[str, Any]:
    """Tell an agent what it has used (tokens), may use, and when that starts anew."""
    used = await running.admission.used(account)
    return {
        "used": used,
        "limit": account.limit,
        "left": max(0, account.limit - used),
        "resets_at": account.period_end.isoformat() if account.period_end else None,
        "tier": account.plan.tier if account.plan is not None else None,
        "is_active": account.is_entitled,
    }


async def _reply(call: Call, content: dict[str, Any]) -> None:
    await call.answer(msgspec.json.encode(content))
