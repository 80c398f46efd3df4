"""A customer changes their plan and their mind, in a real browser."""

import re

from playwright.sync_api import expect

from tests.browser.story import Story


def test_an_upgrade_is_previewed_paid_and_shown(told: Story):
    page = told.page
    page.bring_to_front()
    page.goto("/billing")
    page.locator("[data-tier=pro]").click()
    expect(page.locator("#preview")).to_contain_text("40,000,000")
    price = re.compile(r"Pay \$\d+(\.\d\d)? and upgrade")
    page.get_by_role("button", name=price).click()
    expect(page.locator("#plan-name")).to_have_text("Pro")
    expect(page.locator("#next-charge")).to_have_text("$49")
    expect(page.locator("#invoices tbody tr")).to_have_count(2)


def test_a_cancelled_plan_is_kept_after_all(told: Story):
    page = told.page
    page.bring_to_front()
    page.goto("/billing")
    page.locator("#cancel-plan").click()
    page.locator("#reason").select_option("unused")
    page.locator("#confirm-cancel").click()
    expect(page.locator("#plan-sentence")).to_contain_text("Your plan ends on")
    expect(page.locator("#next-charge")).to_have_text("None")
    page.locator("#undo-cancel").click()
    expect(page.locator("#plan-sentence")).to_contain_text("Your plan renews on")
