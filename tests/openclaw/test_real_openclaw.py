"""A box that runs the real OpenClaw: every promise that the stand-in makes in the other tests."""

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openclaw_web.billing.models import Tier
from openclaw_web.billing.tiers import plan_of
from openclaw_web.boxes import openclaw_config, upgrading
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.memory import backups, listing
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.boxes.openclaw_config import THINKING_LEVELS, Assistant
from openclaw_web.boxes.service import BoxSettings
from openclaw_web.core.database import session_scope
from openclaw_web.jobs.models import JobType
from openclaw_web.local import box_images
from tests.flows.box_world import eventually
from tests.openclaw.openclaw_world import ANSWER_SECONDS, OWNER, SECOND, STRANGER

pytestmark = pytest.mark.openclaw

NEXT_IMAGE = "openclaw-cloud/agent:next"  # the same program: one version is installed
PAID_TO_ANSWERING_SECONDS = 60.0
BOXES_MEASURED = 5
ASSISTANT = Assistant(
    telegram_user_ids=(OWNER, SECOND),
    language="de",
    model="kimi-coding/k2p5",
    thinking_level="high",
    generation=7,
    proxy_url="http://proxy.example/proxy/v1",
)
CASES = {
    "plain": ASSISTANT,
    "another Telegram": replace(ASSISTANT, telegram_url="http://127.0.0.1:8081"),
    "denied": replace(ASSISTANT, denied_tools=tuple(box_images.DENIED_WITHOUT_SANDBOX.split(","))),
    **{f"thinks {one}": replace(ASSISTANT, thinking_level=one) for one in THINKING_LEVELS},
}


@pytest.mark.parametrize("assistant", CASES.values(), ids=CASES)
def test_openclaw_takes_our_configuration(installed, assistant, tmp_path):
    (tmp_path / "openclaw.json").write_text(openclaw_config.render(assistant))
    environment = {
        "HOME": str(tmp_path),
        "PATH": "/usr/bin:/bin",
        "OPENCLAW_STATE_DIR": str(tmp_path),
        "OPENCLAW_CONFIG_READONLY": "1",
        "OPENCLAW_GATEWAY_TOKEN": "a-long-token-of-a-test-gateway",
        "OPENCLAW_PROXY_TOKEN": "ocp_x",
        "TELEGRAM_BOT_TOKEN": "1:x",
    }
    words = [str(installed.node), *installed.words("config", "validate", "--json")]
    done = subprocess.run(  # noqa: S603 - what `make openclaw` installed
        words, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    found = json.loads(done.stdout)
    assert (done.returncode, found["valid"], found.get("warnings", [])) == (0, True, []), found


async def test_a_box_answers_whom_it_may_and_nobody_else(world):
    await world.new_real_box(language="de")
    world.answers_next("Guten Tag!")
    assert await world.ask(OWNER, "Hello") == "Guten Tag!"
    (asked,) = world.upstream.asked
    assert "Answer in it unless asked for another one" in json.dumps(asked["messages"])
    assert "German (de)" in json.dumps(asked["messages"])
    world.write(STRANGER, "Let me in")
    world.answers_next("Still here.")
    assert await world.ask(OWNER, "And now?") == "Still here."
    assert world.chat(STRANGER) == []
    assert len(world.upstream.asked) == 2


async def change(world, box, **fields: Any):
    async with session_scope() as session:
        wanted = BoxSettings(**fields)
        await boxes.change_settings(session, box, wanted, requested_by="test")
    while await world.work():
        pass


async def test_an_added_person_and_another_thinking_level_need_no_restart(world):
    box = await world.new_real_box(thinking_level="low")
    world.answers_next("One")
    await world.ask(OWNER, "Hello")
    pod, gateway = await world.pod_name(box), world.gateway()
    await change(world, box, telegram_user_ids=(OWNER, SECOND), thinking_level="high")

    async def thinks_harder():
        await world.ask(OWNER, "Think")
        return world.upstream.asked[-1]["reasoning_effort"] == "high"

    assert world.upstream.asked[-1]["reasoning_effort"] == "low"
    await eventually(thinks_harder, seconds=ANSWER_SECONDS)
    world.answers_next("You may.")
    assert await world.ask(SECOND, "May I?") == "You may."
    assert (await world.pod_name(box), world.gateway()) == (pod, gateway)
    assert world.log().count("[gateway] ready") == 1  # it can start over within its process too

    async def is_proved():
        return (await world.read(box.id)).applied_generation == 2

    await world.proxy.flush()
    await eventually(is_proved)


async def test_a_paused_box_remembers_when_it_is_back(world):
    box = await world.new_real_box()
    world.answers_next("I shall remember the otter.")
    await world.ask(OWNER, "My animal is the otter")
    assert (await world.act(boxes.pause, box)).status is BoxStatus.SUSPENDED
    assert world.resident_megabytes() < 100
    assert (await world.act(boxes.resume, box)).status is BoxStatus.ACTIVE
    world.answers_next("The otter.")
    assert await world.ask(OWNER, "Which animal?") == "The otter."
    assert "My animal is the otter" in json.dumps(world.upstream.asked[-1]["messages"])


async def test_a_backup_brings_back_what_it_remembered_then(world):
    box = await world.new_real_box()
    world.answers_next("I shall remember the otter.")
    await world.ask(OWNER, "My animal is the otter")
    assert (await world.act(backups.request_backup, box)).status is BoxStatus.ACTIVE
    async with session_scope() as session:
        (saved,) = await listing.list_backups(session, box.customer_id, box.id)
    assert (saved.reason, saved.is_usable) == ("manual", True)
    world.answers_next("The wolf, then.")
    await world.ask(OWNER, "My animal is the wolf")
    assert "My animal is the otter" in json.dumps(world.upstream.asked[-1]["messages"])
    box = await world.act(backups.request_restore, box, saved.id)
    assert (box.status, backups.memory_from(box)) == (BoxStatus.ACTIVE, saved.made_at)
    world.answers_next("The otter.")
    assert await world.ask(OWNER, "Which animal?") == "The otter."
    remembered = json.dumps(world.upstream.asked[-1]["messages"])
    assert "My animal is the otter" in remembered
    assert "wolf" not in remembered


async def test_at_its_limit_it_says_so_politely_and_works_after_an_upgrade(world):
    box = await world.new_real_box()
    world.answers_next("One", prompt_tokens=900, completion_tokens=100)
    await world.ask(OWNER, "Hello")
    await world.proxy.flush()
    await world.change_limit(box, 1_000)
    said = await world.ask(OWNER, "And more?")
    assert "limit" in said.lower()
    assert len(world.upstream.asked) == 1
    await world.change_limit(box, 10_000_000)
    world.answers_next("Back at work.")
    assert await world.ask(OWNER, "Again?") == "Back at work."


async def test_after_an_upgrade_of_its_image_and_its_plan_it_remembers(world):
    box = await world.new_real_box(tier=Tier.STARTER)
    world.answers_next("I shall remember the otter.")
    await world.ask(OWNER, "My animal is the otter")
    (before,) = await world.cluster.pods(box.k8s_namespace)
    world.add_image(NEXT_IMAGE)
    await world.change_tier(box, Tier.PRO)
    box = await world.act(upgrading.request_upgrade, box, NEXT_IMAGE)
    assert box.status is BoxStatus.ACTIVE
    (after,) = await world.cluster.pods(box.k8s_namespace)
    assert after.name != before.name
    assert await world.image_and_memory(box) == (NEXT_IMAGE, plan_of(Tier.PRO).memory_limit)
    world.answers_next("The otter.")
    assert await world.ask(OWNER, "Which animal?") == "The otter."
    assert "My animal is the otter" in json.dumps(world.upstream.asked[-1]["messages"])


@pytest.mark.skipif(bool(box_images.sandbox_refusal()), reason=box_images.sandbox_refusal())
async def test_its_programs_see_nothing_of_this_machine(world, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("of the stack")
    another = world.folder / "volumes" / "customer-another"
    another.mkdir()
    (another / "memory").write_text("of another customer")
    assert list(world.folder.parent.rglob("PG_VERSION"))
    box = await world.new_real_box()
    command = (
        f"echo It begins; cat {secret} {another}/memory {world.folder}/kubeconfig;"
        f" ls {world.folder}/volumes {Path(__file__).parent}; find /tmp -name PG_VERSION;"
        " echo These run: $(cat /proc/[0-9]*/comm), no more; echo I am $(id -u); echo It ends"
    )
    call = {"name": "exec", "arguments": {"command": command}}
    world.queue({"tool_calls": [call], "reasoning": "Look around."}, {"text": "Done."})
    await world.hear(OWNER, "Done.", after="Look around")
    messages = world.upstream.asked[-1]["messages"]
    result = json.dumps([one for one in messages if one["role"] == "tool"])
    for seen in ("It begins", "It ends", box.k8s_namespace):
        assert seen in result, result
    assert result.count("No such file or directory") == 4, result
    hidden = ("of the stack", "of another customer", "customer-another\\n", "PG_VERSION")
    assert [one for one in (*hidden, "I am 0\\n") if one in result] == [], result
    running = result.partition("These run: ")[2].partition(", no more")[0].split()
    assert "openclaw-gatewa" in running
    assert len(running) < 10, running  # the machine has more, and the sandbox a few of its own


@pytest.mark.skipif(
    os.getloadavg()[0] > (os.cpu_count() or 1),
    reason="the machine is busy with something else: what is measured now says nothing",
)
async def test_from_paid_to_answering_takes_less_than_a_minute(world, figures):
    seconds, megabytes = [], []
    for number in range(BOXES_MEASURED):
        began = time.monotonic()
        box = await world.new_real_box(username=f"measured_{number}_bot")
        world.answers_next("Here I am.")
        assert await world.ask(OWNER, "Hello") == "Here I am."
        seconds.append(time.monotonic() - began)
        megabytes.append(world.resident_megabytes())
        await world.do(box, JobType.DESTROY)
    slowest = max(seconds)  # of five, the 95th percentile
    figures(
        f"paid to answering: {', '.join(f'{one:.1f}' for one in seconds)} s,"
        f" resident {max(megabytes)} MB at most"
    )
    assert slowest < PAID_TO_ANSWERING_SECONDS
