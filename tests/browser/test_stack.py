"""The stack that `make run` starts, seen from outside."""

from openclaw_web.local import status


def test_every_service_of_a_fresh_stack_is_healthy(stack):
    found = status.look(stack.home)

    assert found.exit_code == status.OK
    assert {one.name for one in found.services} >= {"postgres", "valkey", "web", "worker"}


def test_a_visitor_sees_the_first_page(page):
    answer = page.goto("/")

    assert answer.status == 200
    assert "OpenClaw" in page.title()


def test_the_page_behind_the_scenes_links_every_simulator(page):
    page.goto("/dev/")

    assert page.locator("a.card").count() == 5
