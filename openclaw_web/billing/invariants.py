"""What must be true of money at any moment, told as an auditor would: in SQL, beside our own code.

Each question returns what breaks its sentence, so it looks into other areas' tables by their names;
it uses none of the code that it judges. `sabotage.py` breaks each of them.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.billing import revenue
from openclaw_web.billing.keeping import GRACE
from openclaw_web.integrations.payment_books import BookedInvoice
from openclaw_web.integrations.payment_objects import StripeSubscription


class Invariant(StrEnum):
    REVENUE = "revenue"
    ONE_LIVE = "one_live"
    OVERLAP = "periods_overlap"
    HOLE = "periods_have_a_hole"
    FROM_ZERO = "usage_starts_from_zero"
    SERVED_UNPAID = "served_without_payment"
    PAID_DARK = "paid_and_dark"
    DELETED_EARLY = "deleted_before_paid_time_is_over"
    DELIVERED = "delivered_or_refunded"


SENTENCES: Mapping[Invariant, str] = {
    Invariant.REVENUE: "What was paid less what was given back is the revenue, here and at Stripe.",
    Invariant.ONE_LIVE: "A customer has at most one live subscription, here and at Stripe.",
    Invariant.OVERLAP: "A customer's usage periods never overlap.",
    Invariant.HOLE: "Usage is counted for all the time that was paid for.",
    Invariant.FROM_ZERO: "Usage starts from zero exactly once in a period.",
    Invariant.SERVED_UNPAID: "Nobody is served without payment beyond the grace, or under a hold.",
    Invariant.PAID_DARK: "Nobody who paid is dark.",
    Invariant.DELETED_EARLY: "No memory is deleted before the paid time is over.",
    Invariant.DELIVERED: "Every paid checkout is delivered within its deadline, or refunded.",
}

# Each returns customer_id, subject and sentence. `:now` is business time; `:grace` is the time for
# which an unpaid customer is served; `:slack` is how long Stripe and our timers may take.
QUESTIONS: Mapping[str, tuple[Invariant, str]] = {
    "two live rows": (
        Invariant.ONE_LIVE,
        """
        SELECT customer_id, string_agg(id::text, ' ') AS subject,
               count(*) || ' subscriptions of this customer are live.' AS sentence
        FROM subscriptions WHERE status <> 'cancelled'
        GROUP BY customer_id HAVING count(*) > 1
        """,
    ),
    "overlapping periods": (
        Invariant.OVERLAP,
        """
        SELECT two.customer_id, two.period_start::text AS subject,
               'It begins before the period of ' || one.period_start || ' has ended.' AS sentence
        FROM usage_monthly one JOIN usage_monthly two
          ON two.customer_id = one.customer_id AND two.period_start > one.period_start
             AND two.period_start < one.period_end
        """,
    ),
    "paid and not counted": (
        Invariant.HOLE,
        """
        WITH paid AS (
            SELECT customer_id,
                   range_agg(tstzrange(period_start, least(period_end, :now))) AS times
            FROM invoices
            WHERE status = 'paid' AND subscription_id IS NOT NULL AND period_start < :now
                  AND period_end > period_start
            GROUP BY customer_id),
        counted AS (
            SELECT customer_id, range_agg(tstzrange(period_start, period_end)) AS times
            FROM usage_monthly WHERE period_end > period_start GROUP BY customer_id),
        held AS (
            SELECT customer_id,
                   range_agg(tstzrange(created_at, coalesce(released_at, 'infinity'))) AS times
            FROM holds WHERE released_at IS NULL OR released_at > created_at GROUP BY customer_id)
        SELECT customer_id, lower(hole)::text AS subject,
               'It is paid for until ' || upper(hole) || ', and nothing counts there.' AS sentence
        FROM paid LEFT JOIN counted USING (customer_id) LEFT JOIN held USING (customer_id),
             LATERAL unnest(paid.times - coalesce(counted.times, '{}')
                            - coalesce(held.times, '{}')) AS hole
        WHERE upper(hole) - lower(hole) > :slack
        """,
    ),
    "not from zero": (
        Invariant.FROM_ZERO,
        """
        SELECT period.customer_id, period.period_start::text AS subject,
               'It counts ' || period.tokens_used || ' tokens, its own events are '
               || own.tokens || '.' AS sentence
        FROM usage_monthly period, LATERAL (
            SELECT coalesce(sum(event.total_tokens), 0) AS tokens
            FROM usage_events event JOIN usage_event_meta meta ON meta.event_id = event.id
            WHERE event.customer_id = period.customer_id
                  AND meta.period_start = period.period_start
                  AND event."timestamp" >= period.period_start - interval '1 day') own
        WHERE period.period_end > :now - interval '40 days' AND period.tokens_used <> own.tokens
        """,
    ),
    "begun twice": (
        Invariant.FROM_ZERO,
        """
        SELECT two.customer_id, two.period_start::text AS subject,
               'It begins a second time, after ' || (two.period_start - one.period_start) || '.'
               AS sentence
        FROM usage_monthly one JOIN usage_monthly two
          ON two.customer_id = one.customer_id AND two.id <> one.id
             AND (two.period_start, two.id) > (one.period_start, one.id)
             AND two.period_start < one.period_start + interval '1 minute'
        """,
    ),
    "grace is over": (
        Invariant.SERVED_UNPAID,
        """
        SELECT row.customer_id, row.stripe_subscription_id AS subject,
               'It is ' || row.status || '; paid for until '
               || coalesce(paid.until::text, 'never') || ', owed since '
               || coalesce(owed.since::text, 'never') || '.' AS sentence
        FROM subscriptions row
        CROSS JOIN LATERAL (
            SELECT max(period_end) AS until FROM invoices
            WHERE subscription_id = row.id AND status = 'paid') paid
        CROSS JOIN LATERAL (
            SELECT min(coalesce(due_at, finalized_at)) AS since FROM invoices
            WHERE subscription_id = row.id AND status = 'open') owed
        CROSS JOIN LATERAL (
            SELECT :grace + make_interval(days => coalesce(sum(amount), 0)::int) AS time
            FROM adjustments
            WHERE customer_id = row.customer_id AND kind = 'grace'
                  AND (until IS NULL OR until > :now)) allowed
        WHERE row.stripe_subscription_id IS NOT NULL
              AND (row.status = 'active'
                   OR row.status = 'past_due' AND row.grace_until > :now
                   OR row.status = 'trialing' AND row.trial_end > :now)
              AND (owed.since + allowed.time + :slack < :now
                   OR coalesce(paid.until, row.trial_end, '-infinity')
                      + allowed.time + :slack < :now)
        """,
    ),
    "served under a hold": (
        Invariant.SERVED_UNPAID,
        """
        SELECT row.customer_id, row.stripe_subscription_id AS subject,
               'It is ' || row.status || ' in spite of a hold (' || hold.kind || ').' AS sentence
        FROM subscriptions row JOIN holds hold USING (customer_id)
        WHERE hold.released_at IS NULL AND hold.created_at < :now - :slack
              AND row.status IN ('trialing', 'active', 'past_due')
        """,
    ),
    "paid and suspended": (
        Invariant.PAID_DARK,
        """
        SELECT row.customer_id, row.stripe_subscription_id AS subject,
               'It is ' || row.status || ', but ' || invoice.stripe_invoice_id
               || ' is paid until ' || invoice.period_end || '.' AS sentence
        FROM subscriptions row JOIN invoices invoice ON invoice.subscription_id = row.id
        WHERE row.status IN ('suspended', 'cancelled')
              AND row.stripe_status IN ('active', 'trialing', 'past_due')
              AND invoice.status = 'paid' AND invoice.paid_cents > invoice.refunded_cents
              AND invoice.paid_at < :now - :slack
              AND invoice.period_start <= :now AND invoice.period_end > :now
              AND NOT EXISTS (SELECT FROM holds WHERE holds.customer_id = row.customer_id
                              AND (released_at IS NULL OR released_at > :now - :slack))
              AND NOT EXISTS (SELECT FROM invoices other
                              WHERE other.subscription_id = row.id AND other.status = 'open')
        """,
    ),
    "paid for nothing": (
        Invariant.PAID_DARK,
        """
        SELECT invoice.customer_id, invoice.stripe_invoice_id AS subject,
               'It is paid until ' || invoice.period_end || ', and there is no subscription.'
               AS sentence
        FROM invoices invoice
        WHERE invoice.subscription_id IS NULL AND invoice.status = 'paid'
              AND invoice.paid_cents > invoice.refunded_cents
              AND invoice.paid_at < :now - :slack
              AND invoice.period_start <= :now AND invoice.period_end > :now
              AND NOT EXISTS (SELECT FROM subscriptions row
                              WHERE row.customer_id = invoice.customer_id
                                    AND row.status IN ('trialing', 'active', 'past_due'))
              AND NOT EXISTS (SELECT FROM holds WHERE holds.customer_id = invoice.customer_id
                              AND released_at IS NULL)
              AND NOT EXISTS (SELECT FROM reversals
                              WHERE reversals.customer_id = invoice.customer_id)
        """,
    ),
    "served without a box that runs": (
        Invariant.PAID_DARK,
        """
        SELECT row.customer_id, row.stripe_subscription_id AS subject,
               'It is ' || row.status || ', but its box is '
               || coalesce(box.status::text, 'not there') || '.' AS sentence
        FROM subscriptions row
        LEFT JOIN boxes box ON box.customer_id = row.customer_id AND box.destroyed_at IS NULL
        WHERE row.stripe_subscription_id IS NOT NULL
              AND (row.status = 'active' OR row.status = 'past_due' AND row.grace_until > :now)
              AND NOT (row.cancel_at_period_end AND row.current_period_end <= :now)
              AND row.created_at < :now - interval '1 day'
              AND (box.id IS NULL
                   OR box.status = 'suspended' AND box.user_paused_at IS NULL
                      AND box.status_changed_at < :now - :slack)
              AND NOT EXISTS (SELECT FROM holds WHERE holds.customer_id = row.customer_id
                              AND (released_at IS NULL OR released_at > :now - :slack))
              AND NOT EXISTS (SELECT FROM operator_jobs job
                              WHERE job.customer_id = row.customer_id
                                    AND job.status IN ('queued', 'running'))
        """,
    ),
    "deleted early": (
        Invariant.DELETED_EARLY,
        """
        SELECT box.customer_id, box.id::text AS subject,
               'It ends on ' || coalesce(box.destroyed_at, box.delete_after)
               || ' and is paid for until ' || paid.until || '.' AS sentence
        FROM boxes box JOIN customers customer ON customer.id = box.customer_id
        CROSS JOIN LATERAL (
            SELECT max(period_end) AS until FROM invoices
            WHERE subscription_id = box.subscription_id AND status = 'paid'
                  AND paid_cents > refunded_cents) paid
        WHERE coalesce(box.destroyed_at, box.delete_after) < paid.until
              AND customer.deleted_at IS NULL
              AND NOT EXISTS (SELECT FROM operator_jobs job
                              WHERE job.box_id = box.id AND job.job_type = 'destroy'
                                    AND job.requested_by NOT IN ('sync', 'reconciler'))
        """,
    ),
    "promise not kept": (
        Invariant.DELIVERED,
        """
        SELECT customer_id, id::text AS subject,
               'It was to be delivered until ' || deliver_by || ' and '
               || coalesce('was on ' || delivered_at, 'is not') || '.' AS sentence
        FROM checkouts
        WHERE paid_at IS NOT NULL AND refunded_at IS NULL
              AND (delivered_at IS NULL AND deliver_by + :slack < :now
                   OR delivered_at > deliver_by AND delivered_at > :now - interval '7 days')
              AND NOT EXISTS (SELECT FROM reversals WHERE reversals.checkout_id = checkouts.id
                              AND finished_at IS NULL)
        """,
    ),
}


@dataclass(frozen=True)
class Finding:
    """One invariant that does not hold."""

    invariant: Invariant
    customer_id: UUID | None
    subject: str
    sentence: str
    question: str = ""

    def as_dict(self) -> dict[str, str | None]:
        return {
            "invariant": self.invariant,
            "customer_id": str(self.customer_id) if self.customer_id else None,
            "subject": self.subject,
            "sentence": self.sentence,
        }


_ALL = sa.text(
    " UNION ALL ".join(
        f"SELECT '{name}' AS name, * FROM ({question}) AS found"  # noqa: S608 - our own words
        for name, (_, question) in QUESTIONS.items()
    )
    .replace(":slack", "interval '3 hours'")
    .replace(":grace", "make_interval(secs => :grace_seconds)")
)


async def check(session: AsyncSession, now: datetime) -> list[Finding]:
    """Return everything that our own tables say is wrong, for all customers."""
    connection = await session.connection()
    given = {"now": now, "grace_seconds": GRACE.total_seconds()}
    rows = (await connection.execute(_ALL, given)).all()
    return [
        Finding(QUESTIONS[name][0], customer_id, str(subject), sentence, question=name)
        for name, customer_id, subject, sentence in rows
    ]


def judge_books(ours: Iterable[BookedInvoice], theirs: Iterable[BookedInvoice]) -> list[Finding]:
    """Return where the revenue of our copy is not the one of Stripe's books."""
    return [
        Finding(Invariant.REVENUE, None, one.subject, one.sentence)
        for one in revenue.differences(ours, theirs)
    ]


def judge_running(running: Iterable[StripeSubscription]) -> list[Finding]:
    """Return whom Stripe charges for more than one subscription."""
    by_customer: dict[str, list[str]] = defaultdict(list)
    for one in running:
        by_customer[one.stripe_customer_id].append(one.id)
    return [
        Finding(
            Invariant.ONE_LIVE, None, customer, f"Stripe charges for {' and '.join(sorted(some))}."
        )
        for customer, some in sorted(by_customer.items())
        if len(some) > 1
    ]
