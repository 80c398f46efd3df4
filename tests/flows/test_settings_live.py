"""New settings in an assistant that goes on running: stand-in, token proxy, and the proof."""

import json
import re
import sys
from dataclasses import replace

import pytest

from openclaw_web.boxes import previews, rendering
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.boxes.openclaw_config import PUT_USER_FILE
from openclaw_web.boxes.service import Bot, BoxSettings
from openclaw_web.core.database import session_scope
from openclaw_web.core.settings import settings
from openclaw_web.gateway.front import Proxy
from openclaw_web.jobs.models import JobType
from tests.contracts.gateway_running import served
from tests.contracts.simulator_process import ROOT, running, secret_file
from tests.factories import Tier, make_period, make_subscription
from tests.flows.box_world import IMAGE, box_world, eventually

pytestmark = pytest.mark.usefixtures("database", "redis")
ALEX, MIA = 111222333, 444555666
KEY = "sk-kimi-of-a-test"
LONGEST_DELAY = 90


@pytest.fixture(scope="module")
def simulators(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    key = secret_file(folder / "key", KEY)
    image = {
        "command": [sys.executable, "-m", "simulators.agent"],
        "env": {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        "also": [list(PUT_USER_FILE)],
    }
    (folder / "images.json").write_text(json.dumps({IMAGE: image}), encoding="utf-8")
    words = ("--images", str(folder / "images.json"), "--kubeconfig", str(folder / "kubeconfig"))
    with (
        running("telegram", folder / "telegram") as telegram,
        running("kimi", folder / "kimi", "--key-file", str(key)) as kimi,
        running("kubernetes", folder / "cluster", *words) as cluster,
    ):
        delay = {"secret_delay_seconds": LONGEST_DELAY}
        cluster.http.patch("/_control/settings", json=delay).raise_for_status()
        yield telegram, kimi, folder / "kubeconfig"


@pytest.fixture
async def gateway(simulators, database, redis, monkeypatch, tmp_path):
    assert database
    assert redis
    _, kimi, _ = simulators
    monkeypatch.setenv("UPSTREAM_URL", f"{kimi.url}/coding/v1")
    monkeypatch.setenv("KIMI_API_KEY", KEY)
    monkeypatch.setenv("OPENCLAW_CLOUD_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    proxy = Proxy()
    await proxy.start()
    async with served(proxy) as url:
        yield f"{url}/proxy/v1"
    await proxy.stop()
    settings.cache_clear()


@pytest.fixture
async def world(simulators, gateway, tmp_path, monkeypatch):
    telegram, _, kubeconfig = simulators
    async with box_world(kubeconfig, tmp_path, monkeypatch) as made:
        chosen = replace(rendering.settings(), box_proxy_url=gateway, telegram_api_url=telegram.url)
        monkeypatch.setattr(rendering, "settings", lambda: chosen)
        yield made


def new_bot(telegram):
    """Make a bot with BotFather's own dialogue, on the phone."""
    for text in ("/newbot", "Walker", "walker_bot"):
        body = {"person": ALEX, "chat": "BotFather", "text": text}
        telegram.http.post("/api/messages", json=body)
    asked = {"bot": "BotFather", "person": ALEX}
    last = telegram.http.get("/_control/messages", params=asked).json()[-1]["text"]
    token = re.findall(r"\d+:[\w-]{35}", last)[0]
    return Bot(token=token, bot_id=int(token.split(":")[0]), username="walker_bot")


async def live_box(world, telegram):
    async with session_scope() as session:
        subscription = await make_subscription(session, tier=Tier.TEAM)
        await make_period(session, subscription=subscription)
        box = await boxes.create_box(
            session,
            customer_id=subscription.customer_id,
            subscription_id=subscription.id,
            settings=BoxSettings(telegram_user_ids=(ALEX,)),
            bot=new_bot(telegram),
        )
    await world.do(box, JobType.PROVISION)
    return await world.read(box.id)


async def change(box, **fields):
    async with session_scope() as session:
        wanted = replace(BoxSettings(telegram_user_ids=(ALEX,)), **fields)
        preview = await previews.preview_settings(session, box, wanted)
        await boxes.change_settings(session, box, wanted, requested_by="customer")
    return preview


async def state_of(world, box):
    async with session_scope() as session:
        return (await previews.applied_state(session, await world.read(box.id))).kind


def write(telegram, person):
    message = {"from": person, "bot": "walker_bot", "text": "hello"}
    telegram.http.post("/_control/messages", json=message).raise_for_status()


def thoughts(kimi):
    """Return how many tokens of reasoning each answer had, which the level decides."""
    asked = kimi.http.get("/_control/requests").json()["requests"]
    return [(one.get("usage") or {}).get("reasoning_tokens") for one in asked]


async def test_an_added_person_and_a_new_level_need_no_restart_and_are_proved(world, simulators):
    telegram, kimi, _ = simulators
    box = await live_box(world, telegram)
    pod = await world.pod_name(box)
    write(telegram, ALEX)

    async def has_thought():
        return any(thoughts(kimi))

    await eventually(has_thought)
    preview = await change(box, telegram_user_ids=(ALEX, MIA), thinking_level="off")
    assert (preview.needs_restart, preview.takes_seconds) == (False, 120)
    kimi.http.delete("/_control/requests")
    await world.work()
    box = await world.read(box.id)
    assert (box.status, box.applied_generation) == (BoxStatus.ACTIVE, 1)
    assert await state_of(world, box) == "waiting_for_proof"

    async def is_proved():
        write(telegram, MIA)
        return await state_of(world, box) == "applied"

    await eventually(is_proved, pause=0.4)
    box = await world.read(box.id)
    assert (box.status, box.applied_generation, box.observed_generation) == ("active", 2, 2)
    assert thoughts(kimi)
    assert not any(thoughts(kimi))
    assert await world.pod_name(box) == pod

    preview = await change(box, telegram_user_ids=(ALEX,), thinking_level="off")
    assert (preview.needs_restart, preview.takes_seconds) == (True, 120)
    await world.work()
    assert await world.pod_name(box) != pod
    assert await state_of(world, box) == "applied"
