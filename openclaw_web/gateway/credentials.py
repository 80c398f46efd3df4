"""Who is asking: a token becomes a caller and an account, out of this process's memory."""

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError

from openclaw_web.core.clock import real_now
from openclaw_web.gateway import looking, origin
from openclaw_web.gateway.callers import Account, Caller, Ending, Holder
from openclaw_web.gateway.errors import UnavailableError, UnknownTokenError
from openclaw_web.gateway.heads import Head
from openclaw_web.gateway.looking import Look, Seen
from openclaw_web.metering import tokens

__all__ = ["Account", "Caller", "Directory", "Ending", "Holder"]

logger = logging.getLogger(__name__)

FRESH_SECONDS = 1.0  # how long an answer is good for when nobody keeps the directory fresh
# Without a database nothing can be revoked either, so what we knew stays true; agents go on through
# a failover or a restore, and an idle one is not looked at for ever.
STALE_SECONDS = 15 * 60.0
LOOK_SECONDS = 5.0
LOOKS_PAUSE_SECONDS = 0.02  # at most fifty looks a second for tokens that we do not know
TOKENS_IN_A_LOOK = 250  # some 4 ms of reading rows, in which nobody else has a turn
MOST_WAITING = 1_000
MOST_ENTRIES = 20_000
MOST_STRANGERS = 10_000
STRANGER_SECONDS = 5.0
USE_NOTED_SECONDS = 60.0

DATABASE_ERRORS = (SQLAlchemyError, OSError, TimeoutError)


@dataclass(slots=True)
class _Entry:
    """A token that we know. Times are by the directory's clock."""

    holder: Holder
    used_at: float
    mark: str = looking.NEVER_SEEN
    expires: float = math.inf  # the token's own end
    good_until: float = -math.inf  # from then on the database is asked before the next request
    seen_at: float = -math.inf  # when a look that found it began
    is_served: bool = False  # the last look found that its requests go through
    noted_at: float = -math.inf  # when its use was written down
    doubted_at: float = -math.inf  # when we were told that it changed


@dataclass(slots=True)
class _Standing:
    """A customer's account, and when it is another one by itself."""

    account: Account
    mark: str = looking.NEVER_SEEN
    turns: float = math.inf
    total_noted_at: float = -math.inf


class Directory:
    """The callers and accounts that this process knows.

    Keyed by the clear token: a hit costs half a microsecond, and an HMAC would cost four times
    that. The clear text came over the same wire a moment ago, is held next to the keys of the
    database and the provider, is forgotten a quarter of an hour after its last use, and nothing
    prints it. What we do not know is remembered by its fingerprint only.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_kept = False  # somebody refreshes it, so a hit needs no age
        self.is_cut_off = False  # the last look failed
        self._clock = clock
        self._entries: dict[bytes, _Entry] = {}
        self._standings: dict[UUID, _Standing] = {}
        self._strangers: OrderedDict[bytes, float] = OrderedDict()
        self._waiting: dict[bytes, asyncio.Future[Exception | None]] = {}
        self._answering: asyncio.Task[None] | None = None
        self._failures = origin.Failures(clock)
        self._clock_offset = timedelta()

    def now(self) -> datetime:
        """Return business time, by an offset that is as old as the newest look at the database."""
        now = real_now()
        return now + self._clock_offset if self._clock_offset else now

    async def identify(self, head: Head) -> Holder:
        """Return who sends a request with this head, and may send it from there.

        Raises:
            UnknownTokenError: nobody that we know, or not any more.
            SlowDownError: unknown tokens came from this address too often.
            NotFromHereError: the token may not be used from there.
            UnavailableError: the database does not answer, and we never saw the token.
        """
        if (holder := self.recognise(head)) is not None:
            return holder
        token = head.shown_token()
        address = origin.address_of(head.scope)
        self._failures.check(address)
        try:
            holder = await self.find(token)
        except UnknownTokenError:
            self._failures.note(address)
            raise
        origin.check_origin(holder[0], is_inside=head.is_inside)
        return holder

    def recognise(self, head: Head) -> Holder | None:
        """Do what `identify` does for who is known, without a task's turn; `None` is not known.

        Raises:
            UnknownTokenError: there is no token at all.
            NotFromHereError: the token may not be used from there.
        """
        holder = self.known(head.shown_token())
        if holder is not None:
            origin.check_origin(holder[0], is_inside=head.is_inside)
        return holder

    def known(self, token: bytes) -> Holder | None:
        """Return who holds a token if that can be said at once."""
        entry = self._entries.get(token)
        if entry is None:
            return None
        now = self._clock()
        if now >= entry.good_until:
            return None
        entry.used_at = now
        return entry.holder

    async def find(self, token: bytes | str) -> Holder:
        """Return who holds a token.

        Raises:
            UnknownTokenError: nobody, or not any more.
            UnavailableError: the database does not answer, and we never saw the token.
        """
        token = token.encode("latin-1", "replace") if isinstance(token, str) else token
        if (holder := self.known(token)) is not None:
            return holder
        if not tokens.looks_like_token(token.decode("latin-1")):
            raise UnknownTokenError
        if self.is_cut_off:
            return self._as_before(token, _away())
        if self._is_stranger(token):
            raise UnknownTokenError
        try:
            await self._ask(token)
        except UnavailableError as refusal:
            return self._as_before(token, refusal)
        entry = self._entries.get(token)
        if entry is None:
            raise UnknownTokenError
        return entry.holder

    def note_total(self, customer_id: UUID, period_start: datetime, used: int) -> None:
        """Take over what a flush left in the database; it only grows until the next look."""
        standing = self._standings.get(customer_id)
        if standing is not None and standing.account.period_start == period_start:
            standing.account.used = max(standing.account.used, used)
            standing.total_noted_at = self._clock()

    async def refresh(self) -> None:
        """Look at every token that was used lately, a few hundred at a time.

        Raises:
            SQLAlchemyError, OSError, TimeoutError: no database; what we knew stays.
        """
        self._forget()
        known = list(self._entries)
        for start in range(0, len(known), TOKENS_IN_A_LOOK):
            await self._look_again(known[start : start + TOKENS_IN_A_LOOK])
        self.is_cut_off = False

    def doubt(self, customer_id: UUID | None) -> None:
        """Ask the database before this customer's next request, or before everybody's."""
        now = self._clock()
        for entry in self._entries.values():
            if customer_id is None or entry.holder[0].customer_id == customer_id:
                entry.doubted_at = now
                entry.good_until = -math.inf

    def take_uses(self, *, at_least: float = USE_NOTED_SECONDS) -> dict[UUID, datetime]:
        """Return when tokens were used last, each once a minute; business time."""
        now, moment = self._clock(), self.now()
        uses = {}
        for entry in self._entries.values():
            if entry.used_at > entry.noted_at and now - entry.noted_at >= at_least:
                entry.noted_at = now
                uses[entry.holder[0].token_id] = moment - timedelta(seconds=now - entry.used_at)
        return uses

    async def close(self) -> None:
        """Ask nothing more."""
        if self._answering is not None:
            self._answering.cancel()
            await asyncio.wait([self._answering])

    def _as_before(self, token: bytes, refusal: UnavailableError) -> Holder:
        """Go on with what we knew, unless we were told that it changed."""
        entry, now = self._entries.get(token), self._clock()
        if entry is None or entry.doubted_at >= entry.seen_at:
            raise refusal
        if now >= entry.expires:
            raise UnknownTokenError
        if now - entry.seen_at >= STALE_SECONDS:
            raise refusal
        entry.used_at = now
        return entry.holder

    async def _ask(self, token: bytes) -> None:
        """Look at a token once, together with all others that are waiting.

        Raises:
            UnavailableError: the database does not answer, or too many are waiting for it.
        """
        waiting = self._waiting.get(token)
        if waiting is None:
            if len(self._waiting) >= MOST_WAITING:
                raise UnavailableError("Too many new callers at once.", retry_after=1)
            waiting = asyncio.get_running_loop().create_future()
            self._waiting[token] = waiting
            if self._answering is None or self._answering.done():
                self._answering = asyncio.create_task(self._answer(), name="look at new tokens")
        error = await asyncio.shield(waiting)
        if error is not None:
            raise _away() from error

    async def _answer(self) -> None:
        while self._waiting:
            batch = dict(islice(self._waiting.items(), TOKENS_IN_A_LOOK))
            error: Exception | None = UnavailableError("The look did not end.")
            try:
                await self._look_at(list(batch))
                error = None
            except DATABASE_ERRORS as failure:
                logger.warning("New tokens cannot be checked: %s.", type(failure).__name__)
                error = failure
            finally:
                for token, waiting in batch.items():
                    del self._waiting[token]
                    if not waiting.done():
                        waiting.set_result(error)
            await asyncio.sleep(LOOKS_PAUSE_SECONDS)

    async def _look_at(self, batch: list[bytes]) -> None:
        """Look at tokens as they came with requests, known or not."""
        began = self._clock()
        hmacs = {tokens.token_hmac(token.decode("latin-1")): token for token in batch}
        async with asyncio.timeout(LOOK_SECONDS):
            look = await looking.at_hmacs(list(hmacs))
        self._take_accounts(look, began)
        for seen in look.tokens.values():
            self._take(hmacs.pop(seen.token_hmac), seen, began)
        self._make_room(frozenset(batch))
        for hmac, token in hmacs.items():
            self._drop(token)
            self._strangers[hmac] = self._clock() + STRANGER_SECONDS
        while len(self._strangers) > MOST_STRANGERS:
            self._strangers.popitem(last=False)

    async def _look_again(self, batch: list[bytes]) -> None:
        """Look at tokens that we know; what is the same does not come."""
        began, entries = self._clock(), self._entries
        some = {entries[one].holder[0].token_id: one for one in batch if one in entries}
        customers = {entries[one].holder[0].customer_id for one in some.values()}
        async with asyncio.timeout(LOOK_SECONDS):
            look = await looking.at_tokens(
                {token_id: entries[token].mark for token_id, token in some.items()},
                {one: self._mark_of(one, began) for one in customers},
            )
        self._take_accounts(look, began)
        for token_id, token in some.items():
            entry = self._entries.get(token)
            if token_id in look.gone:
                self._drop(token)
            elif entry is not None and token_id in look.tokens:
                self._take(token, look.tokens[token_id], began)
            elif entry is not None:
                self._confirm(entry, began)

    def _mark_of(self, customer_id: UUID, now: float) -> str:
        """Return the mark of an account that we need not see again while it stays the same."""
        standing = self._standings[customer_id]
        return standing.mark if now < standing.turns else looking.NEVER_SEEN

    def _is_stranger(self, token: bytes) -> bool:
        hmac = tokens.token_hmac(token.decode("latin-1"))
        return self._strangers.get(hmac, -math.inf) > self._clock()

    def _take_accounts(self, look: Look, began: float) -> None:
        """Change accounts in place: requests under way look at them again."""
        self._clock_offset = look.now - real_now()
        now = self._clock()
        for seen in look.accounts:
            found = seen.account
            standing = self._standings.setdefault(found.customer_id, _Standing(found))
            account = standing.account
            if standing.total_noted_at >= began and account.period_start == found.period_start:
                found.used = max(found.used, account.used)
            account.become(found)
            standing.mark = seen.mark
            standing.turns = _clock_at(now, seen.turns_at, look.now)

    def _take(self, token: bytes, seen: Seen, began: float) -> None:
        caller, now = seen.caller, self._clock()
        account = self._standings[caller.customer_id].account
        entry = self._entries.get(token)
        if entry is None:
            entry = self._entries[token] = _Entry((caller, account), used_at=now)
        ending = entry.holder[0].ending
        entry.holder = (replace(caller, ending=ending), account)
        entry.mark = seen.mark
        entry.expires = _clock_at(now, seen.expires_at, real_now())
        self._confirm(entry, began)

    def _confirm(self, entry: _Entry, began: float) -> None:
        """Note that an entry was right when a look began, and cut what is not served any more."""
        caller, account = entry.holder
        is_served = account.is_entitled and caller.may_call
        if entry.is_served and not is_served:
            caller.ending.come()
            entry.holder = (replace(caller, ending=Ending()), account)
        entry.is_served, entry.seen_at = is_served, began
        if entry.doubted_at < began:
            fresh_until = math.inf if self.is_kept else self._clock() + FRESH_SECONDS
            turns = self._standings[caller.customer_id].turns
            entry.good_until = min(entry.expires, turns, fresh_until)

    def _drop(self, token: bytes) -> None:
        entry = self._entries.pop(token, None)
        if entry is not None:
            entry.holder[0].ending.come()

    def _forget(self) -> None:
        """Forget who expired, has not asked or was not found for long; running streams stay."""
        now = self._clock()
        oldest = now - STALE_SECONDS
        for token, entry in list(self._entries.items()):
            if now >= entry.expires:
                self._drop(token)
            elif entry.seen_at <= oldest or (
                entry.used_at <= oldest and not entry.holder[0].ending.is_watched
            ):
                del self._entries[token]
        self._forget_customers()

    def _make_room(self, arrived: frozenset[bytes]) -> None:
        """Forget who has not asked for longest, once there are many.

        Who has just come stays, and whose streams run: they are to be cut when their token ends.
        """
        too_many = len(self._entries) - MOST_ENTRIES
        if too_many <= 0:
            return
        idle = [
            (token, entry.used_at)
            for token, entry in self._entries.items()
            if token not in arrived and not entry.holder[0].ending.is_watched
        ]
        for token, _ in sorted(idle, key=lambda found: found[1])[:too_many]:
            del self._entries[token]
        self._forget_customers()

    def _forget_customers(self) -> None:
        known = {entry.holder[0].customer_id for entry in self._entries.values()}
        for customer_id in self._standings.keys() - known:
            del self._standings[customer_id]


def _clock_at(now: float, moment: datetime | None, present: datetime) -> float:
    """Return what our clock will show at a moment; it shows `now` at the present."""
    return math.inf if moment is None else now + (moment - present).total_seconds()


def _away() -> UnavailableError:
    return UnavailableError("The service is not available at the moment.")
