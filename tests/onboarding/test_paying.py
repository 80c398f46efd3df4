"""From the tier to the payment page: whose chat it is, what is paid, and what a failure allows."""

from datetime import timedelta

import pytest
from sqlmodel import select

from openclaw_web.accounts import service as accounts
from openclaw_web.accounts.models import OutboxMail
from openclaw_web.billing import queries as billing_queries
from openclaw_web.billing.models import BillingSync, Checkout, Tier
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import ValidationError
from openclaw_web.jobs.models import JobType, OperatorJob
from openclaw_web.onboarding import conversation, paying, service
from openclaw_web.onboarding.chats import StepError
from openclaw_web.onboarding.conversation import Step
from openclaw_web.onboarding.models import OnboardingState
from tests.factories import make_box, make_subscription
from tests.onboarding.visiting import change

EMAIL = "ada@example.com"
IP = "198.51.100.7"


async def rows(session, table):
    return list((await session.exec(select(table))).all())


async def test_a_tier_leads_to_the_address(visitor, telegram):
    await visitor.reach_tier(telegram)
    await visitor.do(service.choose_tier, Tier.PRO)
    assert await visitor.step() is Step.EMAIL
    assert (await visitor.texts())[-2:] == ["I take Pro", conversation.ASK_EMAIL]


async def test_a_double_click_takes_the_tier_once(visitor, telegram):
    await visitor.reach_tier(telegram)
    for _ in range(2):
        await visitor.do(service.choose_tier, Tier.PRO)
    assert (await visitor.texts("them")).count("I take Pro") == 1


async def test_no_tier_before_it_is_offered(visitor, telegram):
    await visitor.reach_language(telegram)
    for act in (service.change_tier, service.retry, service.forget_email):
        with pytest.raises(StepError):
            await visitor.do(act)
    with pytest.raises(StepError):
        await paying.open_page(visitor.token)
    with pytest.raises(StepError):
        await visitor.do(service.choose_tier, Tier.PRO)
    with pytest.raises(StepError):
        await visitor.do(service.give_email, EMAIL, ip=IP)


async def test_an_address_gets_a_code(visitor, telegram, session):
    await visitor.reach_tier(telegram)
    await visitor.do(service.choose_tier, Tier.PRO)
    await visitor.do(service.give_email, f" {EMAIL} ", ip=IP)
    assert await visitor.step() is Step.CODE
    (mail,) = await rows(session, OutboxMail)
    assert (mail.kind, mail.recipient) == ("code", EMAIL)
    assert (await visitor.texts())[-2:] == [EMAIL, conversation.CODE_SENT]


async def test_what_is_no_address_gets_no_code(visitor, telegram, session):
    await visitor.reach_tier(telegram)
    await visitor.do(service.choose_tier, Tier.PRO)
    with pytest.raises(ValidationError):
        await visitor.do(service.give_email, "ada", ip=IP)
    assert await rows(session, OutboxMail) == []
    assert await visitor.step() is Step.EMAIL


async def test_another_address_may_be_given(visitor, telegram):
    await visitor.reach_tier(telegram)
    await visitor.do(service.choose_tier, Tier.PRO)
    await visitor.do(service.give_email, EMAIL, ip=IP)
    await visitor.do(service.forget_email)
    assert await visitor.step() is Step.EMAIL


async def test_whoever_signs_in_owns_the_chat_and_comes_to_the_payment(visitor, telegram):
    customer = await visitor.reach_payment(telegram)
    chat = await visitor.chat()
    assert (chat.customer_id, chat.state) == (customer.id, OnboardingState.AWAITING_PAYMENT)
    assert "email" not in chat.derived_config
    assert (await visitor.texts())[-1] == conversation.ASK_PAYMENT


async def test_a_chat_with_an_owner_is_not_given_away(visitor, telegram):
    ada = await visitor.reach_payment(telegram)
    async with session_scope() as session:
        eve = await accounts.ensure_customer(session, "eve@example.com")
    assert not await visitor.do(service.attach_customer, eve.id)
    assert await visitor.do(service.attach_customer, ada.id)
    assert (await visitor.chat()).customer_id == ada.id


async def test_somebody_signed_in_needs_no_code(visitor, telegram):
    await visitor.reach_tier(telegram)
    async with session_scope() as session:
        customer = await accounts.ensure_customer(session, EMAIL)
    await visitor.do(service.attach_customer, customer.id)
    await visitor.do(service.choose_tier, Tier.TEAM)
    assert await visitor.step() is Step.PAY


async def test_the_payment_page_is_opened_once(visitor, telegram, stripe, session):
    assert stripe
    await visitor.reach_payment(telegram)
    first, second = [await paying.open_page(visitor.token) for _ in range(2)]
    assert first.id == second.id
    assert first.url
    assert (first.tier, first.onboarding_session_id) == (Tier.STARTER, (await visitor.chat()).id)
    assert (await visitor.chat()).expires_at == first.expires_at + timedelta(hours=1)
    assert len(await rows(session, Checkout)) == 1


async def test_another_tier_has_another_payment_page(visitor, telegram, stripe):
    assert stripe
    await visitor.reach_payment(telegram)
    first = await paying.open_page(visitor.token)
    await visitor.do(service.change_tier)
    assert await visitor.step() is Step.TIER
    await visitor.do(service.choose_tier, Tier.PRO)
    assert await visitor.step() is Step.PAY
    second = await paying.open_page(visitor.token)
    assert second.tier is Tier.PRO
    assert second.stripe_session_id != first.stripe_session_id


async def test_coming_back_asks_for_a_look_at_stripe(visitor, telegram, stripe, session):
    assert stripe
    customer = await visitor.reach_payment(telegram)
    checkout = await paying.open_page(visitor.token)
    page = checkout.stripe_session_id
    await visitor.do(service.came_back_from_payment, stripe_session_id="cs_of_somebody_else")
    assert await rows(session, BillingSync) == []
    await visitor.do(service.came_back_from_payment, stripe_session_id=page)
    assert await billing_queries.any_customers_due_for_sync(session, limit=5) == [customer.id]
    assert await visitor.step() is Step.PAY


async def test_a_cancelled_payment_is_answered_once(visitor, telegram):
    await visitor.reach_payment(telegram)
    for _ in range(3):
        await visitor.do(service.note_cancelled_payment)
    texts = await visitor.texts()
    assert texts[-1] == conversation.BACK_FROM_PAYMENT
    assert texts.count(conversation.BACK_FROM_PAYMENT) == 1


async def test_a_cancelled_payment_means_nothing_elsewhere(visitor):
    await visitor.arrive()
    await visitor.do(service.note_cancelled_payment)
    assert await visitor.texts() == [conversation.HELLO]


async def fail(visitor, session, customer, *, with_box):
    box = None
    if with_box:
        subscription = await make_subscription(session, customer=customer)
        box = await make_box(session, subscription=subscription)
    await change(
        session,
        await visitor.chat(),
        state=OnboardingState.FAILED,
        box_id=box.id if box else None,
    )
    return box


async def test_a_failed_set_up_may_be_tried_three_times_again(visitor, telegram, session):
    customer = await visitor.reach_payment(telegram)
    box = await fail(visitor, session, customer, with_box=True)
    for _ in range(service.MAX_RETRIES):
        await visitor.do(service.retry)
        assert await visitor.step() is Step.WATCH
        await change(session, await visitor.chat(), state=OnboardingState.FAILED)
    with pytest.raises(ValidationError, match="already on it"):
        await visitor.do(service.retry)
    (job,) = await rows(session, OperatorJob)
    assert (job.job_type, job.box_id) == (JobType.PROVISION, box.id)
    assert job.requested_by == f"customer:{customer.id}"


async def test_without_a_box_a_retry_looks_at_stripe(visitor, telegram, session):
    customer = await visitor.reach_payment(telegram)
    await fail(visitor, session, customer, with_box=False)
    await visitor.do(service.retry)
    assert await billing_queries.any_customers_due_for_sync(session, limit=5) == [customer.id]
    assert await rows(session, OperatorJob) == []


async def test_it_is_live_once_the_box_of_this_chat_answered(visitor, telegram, session):
    customer = await visitor.reach_payment(telegram)
    box = await fail(visitor, session, customer, with_box=True)
    await change(session, await visitor.chat(), state=OnboardingState.COMPLETE)
    assert await visitor.step() is Step.SAY_HELLO
    box.first_answer_at = await business_now(session)
    session.add(box)
    await session.commit()
    assert await visitor.step() is Step.LIVE
