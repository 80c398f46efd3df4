"""The whole story in a real browser, and a picture of every page."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Stack, take_pictures
from tests.browser.story import COMPLETION_TOKENS, MORNING, PROMPT_TOKENS, Story

LONGEST_STORY_SECONDS = 60
CHART_GROWS_MS = 1_200


def test_from_hi_to_an_answer_takes_less_than_a_minute(told: Story):
    assert MORNING in told.answer
    assert told.seconds < LONGEST_STORY_SECONDS

    told.page.bring_to_front()
    expect(told.page.locator("#live")).to_be_visible()
    take_pictures(told.page, "start-live")


def test_every_token_of_the_answer_shows_on_the_usage_page(told: Story):
    page = told.page
    page.bring_to_front()
    page.goto("/usage")
    expect(page.locator("#events tbody tr").last).to_contain_text(f"{PROMPT_TOKENS:,}")
    expect(page.locator("#events tbody tr").last).to_contain_text(f"{COMPLETION_TOKENS:,}")
    expect(page.get_by_text("sums agree.")).to_be_visible()
    page.wait_for_timeout(CHART_GROWS_MS)
    take_pictures(page, "usage")


def test_home_says_that_the_assistant_answers(told: Story):
    page = told.page
    page.bring_to_front()
    page.goto("/home")
    expect(page.locator("#box-sentence")).to_contain_text(f"Answering on Telegram as @{told.bot}.")
    take_pictures(page, "home")


def test_home_leads_to_the_plan_the_card_and_the_invoices(told: Story):
    page = told.page
    page.bring_to_front()
    page.goto("/home")
    page.locator("#to-billing").click()
    expect(page.locator("#card")).to_contain_text("ending in 4242")
    take_pictures(page, "billing")
    page.locator("#open-portal").click()
    page.wait_for_url("**/dev/stripe/p/session/**")
    expect(page.locator("body")).to_contain_text("$19")


def test_every_page_has_its_picture(page: Page, stack: Stack):
    for path, name in (
        ("/", "landing"),
        ("/pricing", "pricing"),
        ("/login", "login"),
        ("/nothing-here", "not-found"),
        ("/dev/", "dev"),
    ):
        page.goto(path)
        page.wait_for_load_state("networkidle")
        take_pictures(page, name)
    page.goto("/start")
    expect(page.get_by_role("button", name="Yes, let's go")).to_be_visible()
    take_pictures(page, "start")
    assert stack.status()["services"]


def test_the_admin_sees_customers_boxes_and_jobs(told: Story, page: Page, stack: Stack):
    email, password = _admin_account(stack)
    page.goto("/login?step=password")
    page.locator("#email").fill(email)
    page.locator("#password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/admin**")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(page.locator("#customers")).to_contain_text(told.email)
    expect(page.locator("#customers")).to_contain_text("customer-")
    expect(page.locator("#jobs")).to_contain_text("Provision")
    take_pictures(page, "admin")


@pytest.mark.parametrize("path", ["/home", "/usage", "/admin"])
def test_a_stranger_is_sent_to_the_sign_in_page(page: Page, path: str):
    page.goto(path)
    page.wait_for_url("**/login**")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def _admin_account(stack: Stack) -> tuple[str, str]:
    email, password = (stack.home / "admin.txt").read_text(encoding="utf-8").split()
    return email, password
