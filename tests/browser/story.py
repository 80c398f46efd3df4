"""What one customer does, from "hi" to an answer.

In a tab of our site, on the phone and in the inbox.
"""

import re
import time
from typing import Any, Protocol
from uuid import uuid4

from playwright.sync_api import BrowserContext, expect

PERSON = "111222333"
PROMPT_TOKENS = 123_456
COMPLETION_TOKENS = 789
MORNING = "Good morning! Your day is clear until noon."
TOKEN = re.compile(r"\d{6,}:[A-Za-z0-9_-]{30,}")
CODE = re.compile(r"\b\d{8}\b")
_MORNING_ANSWER = {
    "text": MORNING,
    "prompt_tokens": PROMPT_TOKENS,
    "completion_tokens": COMPLETION_TOKENS,
}


class Simulated(Protocol):
    """The part of a stack that a story needs: simulators that do as they are told."""

    def control(self, page: str, path: str, payload: dict[str, Any]) -> Any: ...


class Story:
    """What one customer does, with two tabs and a phone."""

    def __init__(self, context: BrowserContext, stack: Simulated) -> None:
        self.context = context
        self.stack = stack
        self.page = context.new_page()
        self.phone = context.new_page()
        self.mark = uuid4().hex[:8]
        self.email = f"ada-{self.mark}@example.com"
        self.bot = f"ada_{self.mark}_bot"
        self.seconds = 0.0
        self.answer = ""

    def live_through(self) -> None:
        """Go all the way, and note the time from the first "hi" to the assistant's answer."""
        began = time.monotonic()
        self.say_hi()
        self.give_the_bot(self.make_a_bot())
        self.tell_preferences()
        self.confirm_the_address()
        self.pay()
        self.wait_until_it_is_up()
        self.stack.control("kimi", "/_control/answers", {"answers": [_MORNING_ANSWER]})
        self.answer = self.ask("Good morning, what is on today?")
        self.seconds = time.monotonic() - began

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
