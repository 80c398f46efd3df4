"""A box whose namespace is deleted comes back.

A stack that is killed leaves nothing and loses nothing.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
from kubernetes import client, config
from playwright.sync_api import expect
from psycopg import sql

from tests.browser.conftest import Stack, take_pictures
from tests.browser.story import Story

COUNTED = ("customers", "subscriptions", "boxes", "usage_events", "webhook_events", "audit_logs")
SAID_WITHIN_SECONDS = 10
ANSWERS_WITHIN_SECONDS = 60
GONE_WITHIN_SECONDS = 10


def test_a_deleted_namespace_is_told_at_once_and_the_box_answers_again(told: Story, stack: Stack):
    page = told.page
    page.bring_to_front()
    page.goto("/home")
    expect(page.locator("#box-sentence")).to_contain_text("Answering")

    _core(stack).delete_namespace(_namespace(told, stack))

    expect(page.locator("#memory-lost")).to_be_visible(timeout=SAID_WITHIN_SECONDS * 1000)
    take_pictures(page, "home-memory-lost")
    expect(page.locator("#box-sentence")).to_contain_text(
        f"Answering on Telegram as @{told.bot}.", timeout=ANSWERS_WITHIN_SECONDS * 1000
    )
    assert told.ask("Are you there again?")


def test_a_killed_stack_leaves_no_process_and_loses_nothing(told: Story, stack: Stack):
    counts, planted = _row_counts(stack), _plant_a_file(told, stack)
    before = _processes_of(stack)
    assert len(before) > len(stack.status()["services"])

    os.kill(stack.status()["pid"], signal.SIGKILL)
    _wait_until(lambda: not any(_lives(one) for one in before), GONE_WITHIN_SECONDS)
    stack.start()

    assert planted.read_text(encoding="utf-8") == "still here"
    assert _row_counts(stack) == counts
    assert told.ask("And after a power cut?")


def _row_counts(stack: Stack) -> dict[str, int]:
    with psycopg.connect(stack.settings.database_url) as connection:
        return {table: _count(connection, table) for table in COUNTED}


def _count(connection: psycopg.Connection[tuple[int]], table: str) -> int:
    row = connection.execute(
        sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
    ).fetchone()
    assert row
    return row[0]


def _namespace(told: Story, stack: Stack) -> str:
    """Return the namespace of the box that has the customer's bot."""
    with psycopg.connect(stack.settings.database_url) as connection:
        row = connection.execute(
            "SELECT b.k8s_namespace FROM boxes b JOIN box_secrets s ON s.box_id = b.id"
            " WHERE s.bot_username = %s",
            [told.bot],
        ).fetchone()
    assert row
    return row[0]


def _core(stack: Stack) -> client.CoreV1Api:
    return client.CoreV1Api(config.new_client_from_config(stack.status()["kubeconfig"]))


def _plant_a_file(told: Story, stack: Stack) -> Path:
    """Write into the box's volume, as its assistant would."""
    core, namespace = _core(stack), _namespace(told, stack)
    claim = core.list_namespaced_persistent_volume_claim(namespace).items[0].to_dict()
    volume = core.read_persistent_volume(claim["spec"]["volume_name"]).to_dict()
    planted = Path(volume["spec"]["host_path"]["path"]) / "planted.txt"
    planted.write_text("still here", encoding="utf-8")
    return planted


def _processes_of(stack: Stack) -> list[psutil.Process]:
    """Return the supervisor and everything below it, pods included."""
    supervisor = psutil.Process(stack.status()["pid"])
    return [supervisor, *supervisor.children(recursive=True)]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait_until(is_so: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"It took more than {seconds} seconds."
        time.sleep(0.1)
