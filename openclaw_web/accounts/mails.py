"""The words of every mail that we send: one function a kind, from a small payload."""

from collections.abc import Callable, Mapping
from enum import StrEnum

from openclaw_web.accounts import money_letters
from openclaw_web.accounts.letters import Letter, Payload, day, money, page, usage
from openclaw_web.core.errors import OpenClawError
from openclaw_web.integrations import telegram

CODE_MINUTES = 10


class MailKind(StrEnum):
    CODE = "code"
    WELCOME = "welcome"
    LIVE = "live"
    PROVISIONING_FAILED = "provisioning_failed"
    PAYMENT_FAILED = "payment_failed"
    SUSPENDED = "suspended"
    REACTIVATED = "reactivated"
    MEMORY_LOST = "memory_lost"
    BOX_UNHEALTHY = "box_unhealthy"
    BOX_RECOVERED = "box_recovered"
    SETTINGS_ROLLED_BACK = "settings_rolled_back"
    LIMIT_75 = "limit_75"
    LIMIT_90 = "limit_90"
    LIMIT_100 = "limit_100"
    RENEWAL_RECEIPT = "renewal_receipt"
    GRACE_ENDING = "grace_ending"
    PAYMENT_THANKS = "payment_thanks"
    PLAN_CHANGED = "plan_changed"
    PLAN_CHANGE_SCHEDULED = "plan_change_scheduled"
    CANCEL_SCHEDULED = "cancel_scheduled"
    CANCEL_UNDONE = "cancel_undone"
    DESTROY_SOON = "destroy_soon"
    REFUNDED = "refunded"
    DISPUTE_OPENED = "dispute_opened"


class UnknownMailError(OpenClawError):
    """A mail was queued whose kind has no words, or without what its words need."""


def write(kind: str, payload: Payload, *, secret: str | None = None) -> Letter:
    """Return the letter of a kind; a payload without an optional value just leaves its clause out.

    Payload values, all optional: tier_name, bot_username, price_cents, amount_cents, currency,
    tokens_used, tokens_limit, reason, invoice_number, invoice_url; and, in ISO 8601: grace_until,
    delete_after, period_end.

    Raises:
        UnknownMailError: nobody wrote words for this kind, or a code mail came without its code.
    """
    if kind == MailKind.CODE:
        return _code(secret)
    words = LETTERS.get(kind)
    if words is None:
        raise UnknownMailError(f"There are no words for a mail of the kind {kind!r}.")
    return words(payload)


def _code(secret: str | None) -> Letter:
    if not secret:
        raise UnknownMailError("A code mail has no code; it was wiped or never stored.")
    return Letter(
        subject="Your sign-in code for OpenClaw Cloud",
        heading="Here is your code",
        paragraphs=(
            f"Type it on the page that you came from. It works once, for {CODE_MINUTES} minutes.",
        ),
        code=secret,
        closing="Somebody, hopefully you, asked to sign in with this address. If it was not you, "
        "ignore this mail: without the code nothing happens.",
    )


def _welcome(payload: Payload) -> Letter:
    tier = f" on the {payload['tier_name']} plan" if payload.get("tier_name") else ""
    return Letter(
        subject="Welcome to OpenClaw Cloud",
        heading="Thank you! We are setting up your assistant",
        paragraphs=(
            f"Your payment arrived, and your own OpenClaw{tier} is being prepared right now.",
            "It usually takes a minute or two. We write again as soon as it answers.",
        ),
        button="Watch it start",
        address=page("/home"),
    )


def _live(payload: Payload) -> Letter:
    bot = str(payload.get("bot_username") or "")
    return Letter(
        subject="Your assistant is live",
        heading="Your assistant is live",
        paragraphs=(
            "It runs, it is connected to Telegram, and it is waiting for you.",
            f"Open your chat with @{bot} and say hi." if bot else "Open its chat and say hi.",
        ),
        button="Say hi on Telegram" if bot else "See how it is doing",
        address=telegram.bot_link(bot) if bot else page("/home"),
    )


def _provisioning_failed(_payload: Payload) -> Letter:
    return Letter(
        subject="Setting up your assistant takes longer than it should",
        heading="We could not start your assistant yet",
        paragraphs=(
            "Several tries failed. We were told as well, and we keep trying on our own.",
            "Nothing is lost and you need not pay again. We write as soon as it answers.",
        ),
        button="See what happened",
        address=page("/home"),
    )


def _payment_failed(payload: Payload) -> Letter:
    until = day(payload, "grace_until")
    price = money(payload)
    return Letter(
        subject="Your payment did not go through",
        heading="Your payment did not go through",
        paragraphs=(
            f"Your bank declined the payment{f' of {price}' if price else ''} for your assistant.",
            f"It keeps working until {until}. Update your card before then and nothing changes."
            if until
            else "It keeps working for now. Update your card and nothing changes.",
        ),
        button="Update your card",
        address=page("/billing"),
    )


def _suspended(payload: Payload) -> Letter:
    until = day(payload, "delete_after")
    reason = str(payload.get("reason") or "the subscription is not paid")
    return Letter(
        subject="Your assistant is paused",
        heading="Your assistant is paused",
        paragraphs=(
            f"It stopped answering because {reason.rstrip('.')}.",
            f"Its memory is safe until {until}; after that it is deleted."
            if until
            else "Its memory is safe. It goes on where it stopped once this is mended.",
        ),
        button="Bring it back",
        address=page("/billing"),
    )


def _reactivated(_payload: Payload) -> Letter:
    return Letter(
        subject="Your assistant is back",
        heading="Your assistant is back",
        paragraphs=("Thank you. It is starting again, with everything that it remembered.",),
        button="See how it is doing",
        address=page("/home"),
    )


def _memory_lost(_payload: Payload) -> Letter:
    return Letter(
        subject="Your assistant lost its memory",
        heading="Your assistant lost its memory",
        paragraphs=(
            "The disk of your assistant failed and there was no backup to restore. We are sorry.",
            "It runs again with your settings and bot, but does not remember earlier chats.",
        ),
        button="See how it is doing",
        address=page("/home"),
    )


def _box_unhealthy(payload: Payload) -> Letter:
    why = str(payload.get("reason") or "it does not answer its health check").rstrip(".")
    return Letter(
        subject="Your assistant does not answer",
        heading="Your assistant does not answer",
        paragraphs=(
            f"For some minutes now: {why}.",
            "We see it as well and are on it. We write again as soon as it answers.",
        ),
        button="See how it is doing",
        address=page("/home"),
    )


def _box_recovered(_payload: Payload) -> Letter:
    return Letter(
        subject="Your assistant answers again",
        heading="Your assistant answers again",
        paragraphs=("It is back, and reads what was written to it meanwhile.",),
        button="See how it is doing",
        address=page("/home"),
    )


def _settings_rolled_back(payload: Payload) -> Letter:
    why = str(payload.get("reason") or "it did not become ready in time").rstrip(".")
    return Letter(
        subject="Your new settings were taken back",
        heading="Your new settings were taken back",
        paragraphs=(
            f"With them, {why}. Your assistant goes back to the settings that worked before.",
            "Whoever you removed from its list stays out.",
        ),
        button="Look at the settings",
        address=page("/box/settings"),
    )


def _limit_near(share: int) -> Callable[[Payload], Letter]:
    def letter(payload: Payload) -> Letter:
        return Letter(
            subject=f"{share} % of your tokens are used",
            heading=f"{share} % of your tokens are used",
            paragraphs=(
                usage(payload),
                "Nothing stops yet, your assistant goes on as before.",
                "Your usage page shows where the tokens went, day by day.",
            ),
            button="See your usage",
            address=page("/usage"),
        )

    return letter


def _limit_reached(payload: Payload) -> Letter:
    until = day(payload, "period_end")
    return Letter(
        subject="Your assistant has used all its tokens",
        heading="All tokens of this period are used",
        paragraphs=(
            usage(payload),
            "Your assistant says so politely when somebody writes to it.",
            (
                f"It works again {f'on {until}' if until else 'when the next period begins'}, "
                "or at once with a bigger plan."
            ),
        ),
        button="See the bigger plans",
        address=page("/billing"),
    )


LETTERS: Mapping[str, Callable[[Payload], Letter]] = {
    MailKind.WELCOME: _welcome,
    MailKind.LIVE: _live,
    MailKind.PROVISIONING_FAILED: _provisioning_failed,
    MailKind.PAYMENT_FAILED: _payment_failed,
    MailKind.SUSPENDED: _suspended,
    MailKind.REACTIVATED: _reactivated,
    MailKind.MEMORY_LOST: _memory_lost,
    MailKind.BOX_UNHEALTHY: _box_unhealthy,
    MailKind.BOX_RECOVERED: _box_recovered,
    MailKind.SETTINGS_ROLLED_BACK: _settings_rolled_back,
    MailKind.LIMIT_75: _limit_near(75),
    MailKind.LIMIT_90: _limit_near(90),
    MailKind.LIMIT_100: _limit_reached,
    MailKind.RENEWAL_RECEIPT: money_letters.renewal_receipt,
    MailKind.GRACE_ENDING: money_letters.grace_ending,
    MailKind.PAYMENT_THANKS: money_letters.payment_thanks,
    MailKind.PLAN_CHANGED: money_letters.plan_changed,
    MailKind.PLAN_CHANGE_SCHEDULED: money_letters.plan_change_scheduled,
    MailKind.CANCEL_SCHEDULED: money_letters.cancel_scheduled,
    MailKind.CANCEL_UNDONE: money_letters.cancel_undone,
    MailKind.DESTROY_SOON: money_letters.destroy_soon,
    MailKind.REFUNDED: money_letters.refunded,
    MailKind.DISPUTE_OPENED: money_letters.dispute_opened,
}
