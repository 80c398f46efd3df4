"""What the pods are told is what production asks for, and their probes ask what is there."""

import asyncio
import os
import subprocess
import time
from dataclasses import fields

import httpx
import pytest

from openclaw_web import worker
from openclaw_web.api import make_api
from openclaw_web.core import database
from openclaw_web.core.settings import Settings, load, problems, variable
from openclaw_web.gateway.front import Proxy
from openclaw_web.gateway.proxy import alone
from openclaw_web.integrations import redis as our_redis
from tests.deploy import documents
from tests.deploy.documents import (
    PLATFORM,
    SERVERS,
    container,
    env_file,
    image_environment,
    of_kind,
    port_of,
)

TOLD = env_file(PLATFORM / "settings.env")
SECRET = env_file(PLATFORM / "secret.example.env")
ADDED = {"KEEPER_IMAGE": "registry.example.com/openclaw-cloud:1"}  # by kustomize
OPTIONAL = {"ENCRYPTION_KEYS", "TRUSTED_PROXIES", "BOX_STORAGE_CLASS", "BOX_DNS_CIDRS"}
DEFAULTS = {"BOX_PROXY_URL", "LOG_LEVEL"}  # what settings.env itself says
FILLED_IN = {
    "PUBLIC_URL": "https://cloud.example.com",
    "MAIL_FROM": "hello@example.com",
    "BOX_RUNTIME_CLASS": "gvisor",
    **{name: "something" for name in SECRET if name not in OPTIONAL},
}
REFUSED = "127.0.0.1:9"  # nobody listens there


def environment(**changes: str) -> dict[str, str]:
    return image_environment() | TOLD | SECRET | ADDED | FILLED_IN | changes


def test_every_name_is_a_settings():
    known = {variable(one.name) for one in fields(Settings)}
    assert {*TOLD, *SECRET, *ADDED, "PORT", "HOST"} - known == set()


def test_a_secret_is_in_the_secret_and_nothing_else_is():
    secrets = {variable(one.name) for one in fields(Settings) if not one.repr}
    assert set(SECRET) == secrets
    assert set(SECRET).isdisjoint({*TOLD, *ADDED})


def test_filled_in_it_starts():
    assert problems(load(environment())) == []


@pytest.mark.parametrize("name", sorted({*FILLED_IN, *ADDED}))
def test_not_filled_in_it_does_not_start_and_says_why(name):
    assert any(name in problem for problem in problems(load(environment(**{name: ""}))))


def test_what_is_empty_in_the_files_is_to_be_filled_in_or_may_stay_so():
    empty = {name for name, value in {**TOLD, **SECRET}.items() if not value}
    assert empty == {*FILLED_IN, *OPTIONAL}
    assert {*TOLD, *SECRET} - empty == DEFAULTS
    assert problems(load(environment(**dict.fromkeys(OPTIONAL, "")))) == []


def test_no_secret_lies_in_the_folder():
    assert not any(SECRET.values())
    assert of_kind("Secret") == []


@pytest.mark.parametrize("name", SERVERS)
def test_a_process_gets_both_files(name):
    sources = [next(iter(one.items())) for one in container(name)["envFrom"]]
    assert sources == [
        ("configMapRef", {"name": "settings"}),
        ("secretRef", {"name": "openclaw-cloud"}),
    ]
    assert "env" not in container(name)


def test_migrate_gets_the_database_and_nothing_else():
    (one,) = container("migrate")["env"]
    assert one["name"] == "DATABASE_URL"
    assert one["valueFrom"]["secretKeyRef"] == {"name": "openclaw-cloud", "key": "DATABASE_URL"}
    assert one["name"] in SECRET
    assert "envFrom" not in container("migrate")


def paths_of(name: str) -> dict[str, str]:
    """Return which path each probe of a server asks, once it is certain that it asks its port."""
    probes = {
        kind: container(name)[f"{kind}Probe"]["httpGet"]
        for kind in ("startup", "liveness", "readiness")
    }
    for probe in probes.values():
        assert port_of(name, probe["port"]) == int(image_environment()["PORT"])
    return {kind: probe["path"] for kind, probe in probes.items()}


@pytest.fixture
async def nothing_else_runs():
    """Open a database and a Redis that are not there."""
    database.open_database(f"postgresql://one:two@{REFUSED}/three")
    our_redis.open_redis(f"redis://{REFUSED}/0")
    yield
    await our_redis.close_redis()
    await database.close_database()


async def ask(app, paths) -> dict[str, int]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://10.1.2.3:3000") as client:
        return {kind: (await client.get(path)).status_code for kind, path in paths.items()}


@pytest.mark.usefixtures("nothing_else_runs")
async def test_without_a_database_web_lives_and_is_not_ready():
    answers = await ask(make_api(), paths_of("web"))
    assert answers == {"startup": 200, "liveness": 200, "readiness": 503}


@pytest.mark.usefixtures("database", "redis")
async def test_with_a_database_web_is_ready():
    assert set((await ask(make_api(), paths_of("web"))).values()) == {200}


@pytest.mark.usefixtures("nothing_else_runs")
async def test_without_a_database_a_proxy_lives_and_is_ready_once_it_runs(monkeypatch, tmp_path):
    made = Proxy()
    monkeypatch.setattr("openclaw_web.gateway.proxy.proxy", made)
    monkeypatch.setattr(
        "openclaw_web.gateway.front.settings", lambda: load({"OPENCLAW_CLOUD_HOME": str(tmp_path)})
    )
    assert set((await ask(alone, paths_of("proxy"))).values()) == {503}
    await made.start()
    try:
        assert set((await ask(alone, paths_of("proxy"))).values()) == {200}
    finally:
        await made.stop()


@pytest.mark.parametrize("kind", ["startup", "liveness"])
async def test_a_worker_lives_as_long_as_its_sign_of_life_is_fresh(kind, tmp_path):
    home = image_environment()["OPENCLAW_CLOUD_HOME"]
    words = container("worker")[f"{kind}Probe"]["exec"]["command"]
    here = [word.replace(home, str(tmp_path)) for word in words]
    sign = tmp_path / worker.ALIVE_FILE

    async def lives() -> bool:
        done = await asyncio.to_thread(subprocess.run, here, check=False, capture_output=True)
        return done.returncode == 0

    assert not await lives()
    sign.touch()
    assert await lives()
    two_minutes_ago = time.time() - 120
    os.utime(sign, (two_minutes_ago, two_minutes_ago))
    assert not await lives()
    assert words != here
    assert worker.ALIVE_SECONDS * 3 < 60
    assert documents.pod("worker")["volumes"][0]["emptyDir"]
