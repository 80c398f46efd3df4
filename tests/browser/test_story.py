"""The whole story in a real browser: from "hi" to an answer, and the tokens of that answer in the chart."""

import re
import time
from uuid import uuid4

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import Stack, take_pictures

PERSON = "111222333"
LONGEST_STORY_SECONDS = 60
PROMPT_TOKENS = 123_456
COMPLETION_TOKENS = 789
TOKEN = re.compile(r"\d{6,}:[A-Za-z0-9_-]{30,}")
CODE = re.compile(r"\b\d{8}\b")


class Story:
    """What one customer does, with two tabs and a phone."""

    def __init__(self, context: BrowserContext, stack: Stack) -> None:
        self.context = context
        self.stack = stack
        self.page = context.new_page()
        self.phone = context.new_page()
        self.mark = uuid4().hex[:8]
        self.email = f"ada-{self.mark}@example.com"
        self.bot = f"ada_{self.mark}_bot"

    def say_hi(self) -> None:
        self.page.bring_to_front()
        self.page.goto("/start")
        self.page.get_by_role("button", name="Yes, let's go").click()
        self.page.get_by_role("button", name="Organise my days").click()
        expect(self.page.locator("#bot-token")).to_be_visible()

    def make_a_bot(self) -> str:
        self._open_chat("BotFather")
        for text in ("/newbot", f"Ada {self.mark}", self.bot):
            self._type_on_the_phone(text)
        answer = self.phone.locator(".bubble.incoming").filter(has_text=TOKEN).last
        expect(answer).to_be_visible()
        found = TOKEN.search(answer.inner_text())
        assert found
        return found.group()

    def give_the_bot(self, token: str) -> None:
        self.page.bring_to_front()
        self.page.locator("#bot-token").fill(token)
        self.page.locator("#check-bot").click()
        link = self.page.locator("#open-bot")
        expect(link).to_be_visible()
        self.phone.bring_to_front()
        self.phone.goto(link.get_attribute("href") or "")
        self.phone.locator("#start-button").click()
        self.page.bring_to_front()
        self.page.locator("#person-yes").click()

    def tell_preferences(self) -> None:
        self.page.get_by_role("button", name="English").click()
        self.page.get_by_role("button", name="Short and direct").click()
        self.page.locator("#tier-starter").click()

    def confirm_the_address(self) -> None:
        self.page.locator("#email").fill(self.email)
        self.page.locator("#send-code").click()
        expect(self.page.locator("#code")).to_be_visible()
        code = self._mailed_code()
        self.page.bring_to_front()
        self.page.locator("#code").fill(code)
        self.page.locator("#confirm-code").click()

    def pay(self) -> None:
        self.page.locator("#go-to-payment").click()
        self.page.locator("#name").fill("Ada Lovelace")
        self.page.locator("#pay").click()
        self.page.wait_for_url("**/start**")

    def wait_until_it_is_up(self) -> None:
        expect(self.page.locator("#say-hello")).to_be_visible(timeout=30_000)

    def ask(self, text: str) -> str:
        self._open_chat(self.bot)
        before = self.phone.locator(".bubble.incoming").count()
        self._type_on_the_phone(text)
        answer = self.phone.locator(".bubble.incoming").nth(before)
        expect(answer).to_be_visible(timeout=20_000)
        return answer.inner_text()

    def _open_chat(self, name: str) -> None:
        self.phone.bring_to_front()
        self.phone.goto(f"/dev/phone/?chat={name}&person={PERSON}")
        start, composer = self.phone.locator("#start-button"), self.phone.locator("#message-input")
        expect(start.or_(composer).filter(visible=True)).to_be_visible()
        if start.is_visible():
            start.click()
            expect(self.phone.locator(".bubble.incoming").first).to_be_visible()
        expect(composer).to_be_visible()

    def _type_on_the_phone(self, text: str) -> None:
        bubbles = self.phone.locator(".bubble.outgoing")
        before = bubbles.count()
        self.phone.locator("#message-input").fill(text)
        self.phone.locator("#send").click()
        expect(bubbles).to_have_count(before + 1)

    def _mailed_code(self) -> str:
        inbox = self.context.new_page()
        inbox.goto("/dev/inbox/")
        mail = inbox.locator("[data-mail]").filter(has_text=self.email).first
        expect(mail).to_be_visible()
        mail.click()
        expect(inbox.locator("#subject")).to_be_visible()
        body = inbox.locator("body")
        expect(body).to_contain_text(CODE)
        found = CODE.search(body.inner_text())
        assert found
        inbox.close()
        return found.group()


@pytest.fixture
def story(context: BrowserContext, stack: Stack) -> Story:
    return Story(context, stack)


def test_from_hi_to_an_answer_in_under_a_minute_and_every_token_shows(story: Story):
    stack, page = story.stack, story.page
    began = time.monotonic()
    story.say_hi()
    story.give_the_bot(story.make_a_bot())
    story.tell_preferences()
    story.confirm_the_address()
    story.pay()
    story.wait_until_it_is_up()
    _next_answer(stack, text="Good morning! Your day is clear until noon.")
    answer = story.ask("Good morning, what is on today?")
    seconds = time.monotonic() - began
    assert "clear until noon" in answer
    assert seconds < LONGEST_STORY_SECONDS
    (stack.home / "story-seconds").write_text(f"{seconds:.1f}\n", encoding="utf-8")

    page.bring_to_front()
    expect(page.locator("#live")).to_be_visible()
    take_pictures(page, "start-live")
    _tokens_show(page)
    _home_tells_the_truth(page, story.bot)


def test_every_page_has_its_picture(page: Page, stack: Stack):
    for path, name in (
        ("/", "landing"),
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


def test_the_admin_sees_customers_boxes_and_jobs(page: Page, stack: Stack):
    email, password = _admin_account(stack)
    page.goto("/login?step=password")
    page.locator("#email").fill(email)
    page.locator("#password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/admin**")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(page.get_by_role("heading", name="Newest jobs")).to_be_visible()
    take_pictures(page, "admin")


@pytest.mark.parametrize("path", ["/home", "/usage", "/admin"])
def test_a_stranger_is_sent_to_the_sign_in_page(page: Page, path: str):
    page.goto(path)
    page.wait_for_url("**/login**")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def _next_answer(stack: Stack, *, text: str) -> None:
    """Set the model's next answer and its token counts through the simulator's control endpoint."""
    answer = {"text": text, "prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS}
    stack.control("kimi", "/_control/answers", {"answers": [answer]})


def _tokens_show(page: Page) -> None:
    page.goto("/usage")
    expect(page.locator("#tokens-used")).to_have_text(f"{PROMPT_TOKENS + COMPLETION_TOKENS:,}")
    expect(page.locator("#events tbody tr")).to_have_count(1)
    expect(page.get_by_text("All three agree, to the token.")).to_be_visible()
    page.wait_for_timeout(1_200)  # the chart grows for a moment
    take_pictures(page, "usage")


def _home_tells_the_truth(page: Page, bot: str) -> None:
    page.goto("/home")
    expect(page.locator("#box-sentence")).to_have_text(f"Answering on Telegram as @{bot}.")
    take_pictures(page, "home")


def _admin_account(stack: Stack) -> tuple[str, str]:
    email, password = (stack.home / "admin.txt").read_text(encoding="utf-8").split()
    return email, password
