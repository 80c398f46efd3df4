"""Breaking each invariant of money on purpose: a check that cannot fail is a defect.

All of it happens in temporary tables of the same names, which hide the real ones from this
transaction: nothing real is touched or locked, and no constraint keeps us from what must not be.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.billing import invariants
from openclaw_web.billing.invariants import Finding, Invariant
from openclaw_web.core.errors import NotFoundError, OpenClawError
from openclaw_web.integrations.payment_books import BookedInvoice
from openclaw_web.integrations.payment_objects import StripeSubscription

TABLES = (
    *("customers", "subscriptions", "invoices", "holds", "adjustments", "checkouts", "reversals"),
    *("boxes", "operator_jobs", "usage_monthly", "usage_events", "usage_event_meta"),
)
NOW = datetime(2028, 2, 29, 12, tzinfo=UTC)
MONTH = timedelta(days=29)
PRICE_CENTS = 4_900

# A customer with whom all is well: paid, served, delivered, counted.
HEALTHY = """
INSERT INTO customers (id, email) VALUES (:c, 'nobody@sabotage.invalid');
INSERT INTO subscriptions (id, customer_id, stripe_subscription_id, stripe_status, tier, status,
    tokens_limit, current_period_start, current_period_end, cancel_at_period_end, created_at)
VALUES (:s, :c, 'sub_1', 'active', 'pro', 'active', 1000, :start, :end, false, :start);
INSERT INTO invoices (stripe_invoice_id, customer_id, subscription_id, status, currency, due_cents,
    paid_cents, refunded_cents, period_start, period_end, finalized_at, due_at, paid_at)
VALUES ('in_1', :c, :s, 'paid', 'usd', 4900, 4900, 0, :start, :end, :start, :start, :start);
INSERT INTO usage_monthly (id, customer_id, period_start, period_end, tokens_used, tokens_limit)
VALUES (:p, :c, :start, :end, 120, 1000);
INSERT INTO usage_events (id, customer_id, box_id, "timestamp", model, prompt_tokens,
    completion_tokens) VALUES (1, :c, :b, :now, 'made-up', 100, 20);
INSERT INTO usage_event_meta (event_id, period_start) VALUES (1, :start);
INSERT INTO boxes (id, customer_id, subscription_id, k8s_namespace, telegram_user_ids, status,
    status_changed_at, created_at)
VALUES (:b, :c, :s, 'customer-nobody', '{1}', 'active', :start, :start);
INSERT INTO checkouts (id, customer_id, tier, idempotency_key, status, expires_at, paid_at,
    deliver_by, delivered_at)
VALUES (:k, :c, 'pro', 'key', 'complete', :start, :start, :tomorrow, :start)
"""
# What is done, and which invariant has to notice it.
STATEMENTS: Mapping[str, tuple[Invariant, str]] = {
    "two-live": (
        Invariant.ONE_LIVE,
        """
        INSERT INTO subscriptions SELECT (jsonb_populate_record(subscriptions,
            '{"id": "00000000-0000-0000-0000-0000000000ff"}')).* FROM subscriptions
        """,
    ),
    "periods-overlap": (
        Invariant.OVERLAP,
        """
        INSERT INTO usage_monthly (id, customer_id, period_start, period_end, tokens_limit)
        VALUES (:x, :c, :now, :end, 1000)
        """,
    ),
    "period-missing": (Invariant.HOLE, "DELETE FROM usage_monthly"),
    "period-cut": (
        Invariant.HOLE,
        "UPDATE usage_monthly SET period_end = period_start + interval '1 day'",
    ),
    "usage-carried-over": (
        Invariant.FROM_ZERO,
        "UPDATE usage_monthly SET tokens_used = tokens_used + 500",
    ),
    "period-twice": (
        Invariant.FROM_ZERO,
        """
        INSERT INTO usage_monthly (id, customer_id, period_start, period_end, tokens_used,
            tokens_limit) VALUES (:x, :c, :start, :end, 120, 1000)
        """,
    ),
    "never-paid": (Invariant.SERVED_UNPAID, "DELETE FROM invoices"),
    "grace-over": (
        Invariant.SERVED_UNPAID,
        """
        UPDATE invoices SET status = 'open', paid_cents = 0, paid_at = NULL;
        UPDATE subscriptions SET status = 'past_due', grace_until = :end
        """,
    ),
    "renewal-forgotten": (
        Invariant.SERVED_UNPAID,
        """
        UPDATE invoices SET period_start = period_start - interval '40 days',
                            period_end = :now - interval '8 days'
        """,
    ),
    "hold-ignored": (
        Invariant.SERVED_UNPAID,
        """
        INSERT INTO holds (id, customer_id, kind, reason, created_at)
        VALUES (:x, :c, 'dispute', 'made up', :start)
        """,
    ),
    "paid-suspended": (Invariant.PAID_DARK, "UPDATE subscriptions SET status = 'suspended'"),
    "paid-for-nothing": (
        Invariant.PAID_DARK,
        "UPDATE invoices SET subscription_id = NULL; DELETE FROM subscriptions",
    ),
    "box-suspended": (Invariant.PAID_DARK, "UPDATE boxes SET status = 'suspended'"),
    "box-missing": (Invariant.PAID_DARK, "DELETE FROM boxes"),
    "deleted-early": (
        Invariant.DELETED_EARLY,
        "UPDATE boxes SET delete_after = :end - interval '1 second'",
    ),
    "destroyed-early": (
        Invariant.DELETED_EARLY,
        "UPDATE boxes SET status = 'destroyed', destroyed_at = :now",
    ),
    "never-delivered": (Invariant.DELIVERED, "UPDATE checkouts SET delivered_at = NULL"),
    "delivered-late": (
        Invariant.DELIVERED,
        "UPDATE checkouts SET delivered_at = :now - interval '1 hour'",
    ),
}
LOST, CHANGED, REFUND, TWICE = "invoice-lost", "invoice-changed", "refund-lost", "paid-twice"
NAMES = (*STATEMENTS, LOST, CHANGED, REFUND, TWICE)
NOTICED_BY: Mapping[str, Invariant] = {
    **{name: invariant for name, (invariant, _) in STATEMENTS.items()},
    LOST: Invariant.REVENUE,
    CHANGED: Invariant.REVENUE,
    REFUND: Invariant.REVENUE,
    TWICE: Invariant.ONE_LIVE,
}


async def check_broken(session: AsyncSession, name: str) -> list[Finding]:
    """Break one invariant of somebody made up and return what the check finds.

    The caller rolls back.

    Raises:
        NotFoundError: nobody knows this sabotage.
        OpenClawError: the check was red before anything was broken.
    """
    if name not in NAMES:
        raise NotFoundError(f"There is no sabotage {name!r}; there are: {', '.join(NAMES)}.")
    if name not in STATEMENTS:
        return _check_broken_books(name)
    for table in TABLES:
        like = f"(LIKE public.{table} INCLUDING DEFAULTS INCLUDING GENERATED) ON COMMIT DROP"
        await _run(session, f"CREATE TEMPORARY TABLE {table} {like}")
    await _run(session, HEALTHY)
    _require_green(await invariants.check(session, NOW))
    await _run(session, STATEMENTS[name][1])
    return await invariants.check(session, NOW)


def _check_broken_books(name: str) -> list[Finding]:
    """Compare made-up books of Stripe with a copy from which something is missing."""
    book = BookedInvoice(
        id="in_1",
        stripe_customer_id="cus_1",
        currency="usd",
        paid_cents=PRICE_CENTS,
        refunded_cents=PRICE_CENTS,
        paid_at=NOW,
    )
    one = StripeSubscription(
        id="sub_1",
        stripe_customer_id="cus_1",
        status="active",
        price_id=None,
        price_lookup_key=None,
        price_tier=None,
        period_start=NOW,
        period_end=NOW + MONTH,
        cancel_at_period_end=False,
        trial_end=None,
        created=NOW,
    )
    _require_green([*invariants.judge_books([book], [book]), *invariants.judge_running([one])])
    if name == TWICE:
        return invariants.judge_running([one, replace(one, id="sub_2")])
    copies = {
        LOST: [],
        CHANGED: [replace(book, paid_cents=PRICE_CENTS + 1)],
        REFUND: [replace(book, refunded_cents=0)],
    }
    return invariants.judge_books(copies[name], [book])


def _require_green(findings: list[Finding]) -> None:
    if findings:
        raise OpenClawError(f"Red before the sabotage: {findings[0].sentence}")


async def _run(session: AsyncSession, statements: str) -> None:
    connection = await session.connection()
    ids = {letter: f"00000000-0000-0000-0000-00000000000{at}" for at, letter in enumerate("csbpkx")}
    start = NOW - timedelta(days=20)
    moments = {"now": NOW, "start": start, "end": start + MONTH}
    values = {**ids, **moments, "tomorrow": start + timedelta(days=1)}
    for text in statements.split(";"):
        statement = sa.text(text)
        wanted = {key: values[key] for key in statement.compile().params}
        await connection.execute(statement, wanted)
