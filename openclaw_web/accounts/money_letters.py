"""The letters about money: receipts, overdue payments, changes of plan, leaving, money back."""

from openclaw_web.accounts.letters import Letter, Payload, day, money, page, plan
from openclaw_web.ui import format as written

BILLING = "/billing"


def renewal_receipt(payload: Payload) -> Letter:
    amount, until = money(payload, "amount_cents"), day(payload, "period_end")
    number = payload.get("invoice_number")
    invoice = str(payload.get("invoice_url") or "")
    return Letter(
        subject="Your receipt from OpenClaw Cloud",
        heading=f"Thank you for {amount}" if amount else "Thank you for your payment",
        paragraphs=(
            (
                f"{_capital(plan(payload))} is paid{f' until {until}' if until else ''}, "
                f"and your assistant starts with {_tokens(payload)}."
            ),
            f"The invoice has the number {number}."
            if number
            else "The invoice is on your billing page.",
        ),
        button="See the invoice",
        address=invoice or page(BILLING),
    )


def grace_ending(payload: Payload) -> Letter:
    until, amount = day(payload, "grace_until"), money(payload)
    return Letter(
        subject="Your assistant stops soon: the payment is still missing",
        heading="Your payment is still missing",
        paragraphs=(
            f"We could not collect {amount or 'the payment'} for your assistant yet.",
            (
                f"It stops answering {f'on {until}' if until else 'soon'}. "
                "With a card that works it simply goes on; its memory is kept either way."
            ),
        ),
        button="Fix your card",
        address=page(BILLING),
    )


def payment_thanks(payload: Payload) -> Letter:
    amount, until = money(payload, "amount_cents"), day(payload, "period_end")
    return Letter(
        subject="Thank you, your payment arrived",
        heading="Thank you, your payment arrived",
        paragraphs=(
            f"{f'We received {amount}' if amount else 'We received it'}, and nothing is open now.",
            f"Your assistant goes on as before{f', paid until {until}' if until else ''}.",
        ),
        button="See your plan",
        address=page(BILLING),
    )


def plan_changed(payload: Payload) -> Letter:
    until = day(payload, "period_end")
    return Letter(
        subject="Your plan has changed",
        heading=f"You are on {plan(payload, 'your new plan')} now",
        paragraphs=(
            f"Your assistant has {_tokens(payload)}{f' until {until}' if until else ''}.",
            (
                "It restarts once, to get its new size; that takes up to 2 minutes. "
                "It forgets nothing."
            ),
        ),
        button="See your plan",
        address=page(BILLING),
    )


def plan_change_scheduled(payload: Payload) -> Letter:
    until, amount = day(payload, "period_end"), money(payload)
    return Letter(
        subject="Your plan will change",
        heading=f"You move to {plan(payload, 'a smaller plan')}"
        + (f" on {until}" if until else " when this period ends"),
        paragraphs=(
            "Until then nothing changes: what you have paid for stays yours.",
            f"From then on it costs {amount} a month." if amount else "Nothing is charged today.",
            "You can change your mind until that day.",
        ),
        button="See or undo the change",
        address=page(BILLING),
    )


def cancel_scheduled(payload: Payload) -> Letter:
    until = day(payload, "period_end")
    return Letter(
        subject="Your plan ends" + (f" on {until}" if until else " with this period"),
        heading="You have cancelled your plan",
        paragraphs=(
            "Your assistant works "
            + (f"until {until}" if until else "until the end of the paid period")
            + ", and you are not charged again.",
            "After that it is paused, and its memory is kept for seven more days.",
            "If you change your mind, one click keeps everything as it is.",
        ),
        button="Keep my plan",
        address=page(BILLING),
    )


def cancel_undone(payload: Payload) -> Letter:
    until, amount = day(payload, "period_end"), money(payload)
    return Letter(
        subject="Your plan goes on",
        heading="Good that you stay",
        paragraphs=(
            f"You took your cancellation back, so {plan(payload)} goes on.",
            f"The next charge is {amount}{f' on {until}' if until else ''}."
            if amount
            else "Nothing else changes.",
        ),
        button="See your plan",
        address=page(BILLING),
    )


def destroy_soon(payload: Payload) -> Letter:
    until = day(payload, "delete_after")
    when = f"on {until}" if until else "soon"
    return Letter(
        subject=f"Your assistant and its memory are deleted {when}",
        heading=f"Your assistant is deleted {when}",
        paragraphs=(
            (
                "Your subscription has ended, and the time for which we keep its memory is nearly "
                "over. What is deleted cannot be brought back."
            ),
            "If you choose a plan before then, it goes on where it stopped.",
        ),
        button="Bring it back",
        address=page(BILLING),
    )


def refunded(payload: Payload) -> Letter:
    amount = money(payload, "amount_cents")
    reason = str(payload.get("reason") or "").strip().rstrip(".")
    return Letter(
        subject="Your money is on its way back",
        heading=f"We refunded {amount}" if amount else "We refunded your payment",
        paragraphs=(
            *((f"We did this because {reason}.",) if reason else ()),
            "It goes to the card that you paid with. Banks take five to ten days to show it.",
        ),
        button="See your invoices",
        address=page(BILLING),
    )


def dispute_opened(payload: Payload) -> Letter:
    amount = money(payload, "amount_cents")
    return Letter(
        subject="Your bank questions a payment to us",
        heading="Your bank questions a payment to us",
        paragraphs=(
            (
                f"Somebody told your bank that the payment{f' of {amount}' if amount else ''} "
                "was not in order."
            ),
            (
                "Until your bank decides, your assistant is paused. Its memory is safe and is not "
                "deleted in the meantime."
            ),
            "If this is a mistake, ask your bank to take the dispute back.",
        ),
        button="See your billing page",
        address=page(BILLING),
    )


def _tokens(payload: Payload) -> str:
    limit = payload.get("tokens_limit")
    return f"{written.tokens(int(limit))} tokens" if limit is not None else "all of its tokens"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
