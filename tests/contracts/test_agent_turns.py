"""The stand-in agent together with Telegram and the model API, as a pod runs it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.contracts.simulator_process import (
    ROOT,
    clean_environment,
    eventually,
    free_port,
    rss_megabytes,
    running,
    secret_file,
)

ALEX, MIA = 111222333, 444555666
KEY = "sk-kimi-of-a-test"
GATEWAY_TOKEN = "gateway-token-of-a-test"  # noqa: S105 - for a process of this test
POD_PORT = 18789


@pytest.fixture(scope="module")
def telegram(tmp_path_factory):
    with running("telegram", tmp_path_factory.mktemp("telegram")) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def kimi(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kimi")
    key_file = secret_file(folder / "key", KEY)
    with running("kimi", folder / "run", "--key-file", str(key_file)) as simulator:
        yield simulator


@pytest.fixture
def bot(telegram, kimi):
    """Make a bot with BotFather's own dialogue, on the phone."""
    kimi.http.delete("/_control/answers")
    kimi.http.delete("/_control/requests")
    username = f"walk{time.monotonic_ns()}_bot"
    for text in ("/newbot", "Walker", username):
        body = {"person": ALEX, "chat": "BotFather", "text": text}
        telegram.http.post("/api/messages", json=body)
    asked = {"bot": "BotFather", "person": ALEX}
    last = telegram.http.get("/_control/messages", params=asked).json()[-1]["text"]
    return {"username": username, "token": re.findall(r"\d+:[\w-]{35}", last)[0]}


@pytest.fixture
def pod(tmp_path, telegram, kimi, bot):
    pod = Pod(tmp_path, telegram, kimi, bot)
    yield pod
    pod.close()


class Pod:
    """An agent process with a configuration mounted as Kubernetes mounts a Secret."""

    def __init__(self, folder: Path, telegram, kimi, bot) -> None:
        self.folder, self.telegram, self.kimi, self.bot = folder, telegram, kimi, bot
        self.config = base_config(telegram, kimi)
        self.environment = {"TELEGRAM_BOT_TOKEN": bot["token"], "MODEL_KEY": KEY}
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.mounts = 0

    def mount(self) -> None:
        """Write the configuration beside the old one and flip the `..data` link."""
        self.mounts += 1
        version = self.folder / "config" / f"..{self.mounts}"
        version.mkdir(parents=True)
        (version / "openclaw.json").write_text(json.dumps(self.config))
        link = self.folder / "config" / "..next"
        link.symlink_to(version.name)
        link.rename(self.folder / "config" / "..data")
        path = self.folder / "config" / "openclaw.json"
        if not path.is_symlink():
            path.symlink_to("..data/openclaw.json")

    def start(self, *, is_awaited: bool = True) -> float:
        """Start the agent and return the seconds until it was ready."""
        self.mount()
        environment = clean_environment(
            OPENCLAW_CONFIG_PATH=str(self.folder / "config" / "openclaw.json"),
            OPENCLAW_STATE_DIR=str(self.folder / "state"),
            OPENCLAW_GATEWAY_TOKEN=GATEWAY_TOKEN,
            **{f"PORT_{POD_PORT}": str(self.port)},
            **self.environment,
        )
        began = time.monotonic()
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "simulators.agent"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
            )
        if is_awaited:
            eventually(lambda: self.health("/readyz").get("ready"), 20)
        return time.monotonic() - began

    def health(self, path: str, **headers: str) -> dict:
        try:
            url = f"http://127.0.0.1:{self.port}{path}"
            return httpx.get(url, headers=headers, trust_env=False).json()
        except httpx.TransportError:
            return {}

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(timeout=10)

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.stop(signal.SIGKILL)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    # What a person does

    def write(self, text: str, person: int = ALEX) -> None:
        body = {"from": person, "bot": self.bot["username"], "text": text}
        self.telegram.http.post("/_control/messages", json=body).raise_for_status()

    def replies(self, person: int = ALEX) -> list[str]:
        asked = {"bot": self.bot["username"], "person": person}
        chat = self.telegram.http.get("/_control/messages", params=asked).json()
        return [one["text"] for one in chat if one["from"] == "bot"]

    def reply_to(self, text: str, person: int = ALEX) -> str:
        before = len(self.replies(person))
        self.write(text, person)
        return eventually(lambda: self.replies(person)[before:], 20)[0]

    def rests(self) -> None:
        """Wait until every message is answered for good: a kill before has it answered anew."""
        spool = self.folder / "state" / "telegram" / "spool"
        eventually(lambda: not list(spool.glob("*.json")), 20)

    def queue(self, *answers: dict) -> None:
        self.kimi.http.post("/_control/answers", json={"answers": list(answers)}).raise_for_status()

    def model_calls(self) -> list[dict]:
        return self.kimi.http.get("/_control/requests").json()["requests"]


def base_config(telegram, kimi) -> dict:
    model = {"id": "kimi-for-coding", "name": "Kimi", "maxTokens": 32768}
    provider = {
        "baseUrl": f"{kimi.url}/v1",
        "apiKey": "${MODEL_KEY}",
        "api": "openai-completions",
        "headers": {"x-box": "one"},
        "models": [model | {"compat": {"supportsReasoningEffort": True}}],
    }
    channel = {
        "enabled": True,
        "botToken": "${TELEGRAM_BOT_TOKEN}",
        "apiRoot": telegram.url,
        "dmPolicy": "allowlist",
        "allowFrom": [ALEX],
    }
    return {
        "gateway": {
            "port": POD_PORT,
            "auth": {"mode": "token", "token": "${OPENCLAW_GATEWAY_TOKEN}"},
        },
        "agents": {
            "defaults": {"model": {"primary": "box/kimi-for-coding"}, "thinkingDefault": "medium"}
        },
        "models": {"mode": "replace", "providers": {"box": provider}},
        "channels": {"telegram": channel},
        "session": {"dmScope": "per-channel-peer"},
    }


def test_a_new_bot_answers_the_person_who_made_it(pod):
    pod.start()
    body = {"person": ALEX, "chat": pod.bot["username"], "payload": "welcome"}
    pod.telegram.http.post("/api/start", json=body)
    assert eventually(pod.replies)[0].startswith("Hello! I am your assistant")
    assert "how are you" in pod.reply_to("how are you?")
    call = pod.model_calls()[0]
    assert (call["stream"], call["model"]) == (True, "kimi-for-coding")
    assert {"authorization", "x-box"} <= set(call["header_names"])
    assert call["usage"]["reasoning_tokens"] > 0  # thinkingDefault reached the model
    assert rss_megabytes(pod.process.pid) < 45


def test_a_stranger_is_dropped_without_a_word(pod):
    pod.start()
    pod.write("let me in", MIA)
    pod.reply_to("hello")
    assert pod.replies(MIA) == []
    assert len(pod.model_calls()) == 1


def test_the_conversation_is_remembered_across_a_kill(pod):
    pod.start()
    pod.reply_to("my cat is called Minou")
    pod.rests()
    pod.stop(signal.SIGKILL)
    pod.start()
    pod.reply_to("what is my cat called?")
    second, first = pod.model_calls()
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"] + 20
    pod.reply_to("/new")
    pod.reply_to("what is my cat called?")
    assert pod.model_calls()[0]["usage"]["prompt_tokens"] < second["usage"]["prompt_tokens"]


def test_the_persons_notes_are_in_the_system_prompt(pod):
    pod.start()
    pod.reply_to("hello")
    (pod.folder / "state" / "workspace").mkdir()
    (pod.folder / "state" / "workspace" / "USER.md").write_text("Answer in French. " * 20)
    pod.reply_to("/new")
    pod.reply_to("hello")
    second, first = pod.model_calls()
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"] + 80


LIMIT = "monthly usage limit reached, resets on 2026-12-01"


@pytest.mark.parametrize(
    ("answers", "reply", "calls"),
    [
        ([{"status": 401}], "HTTP 401", 1),
        ([{"status": 403}], "Re-authenticate", 1),
        ([{"status": 402}], "billing error", 1),
        ([{"status": 429, "error": {"code": "insufficient_quota"}}], "billing error", 1),
        ([{"status": 429, "error": LIMIT, "retry_after_seconds": 864000}], LIMIT, 1),
        ([{"status": 429, "error": "slow down", "retry_after_seconds": 0, "times": 2}], "fine", 3),
        ([{"status": 503, "retry_after_seconds": 0, "times": 3}], "Something went wrong", 3),
        ([{"text": "one two three", "cut_after_chunks": 1}], "fine", 2),
        ([{"text": "one two three", "cut_after_chunks": 1, "times": 2}], "Something went wrong", 2),
    ],
    ids=["401", "403", "402", "billing", "limit", "429 twice", "503", "cut once", "cut twice"],
)
def test_failures_of_the_model_end_as_measured(pod, answers, reply, calls):
    pod.start()
    pod.queue(*answers, {"text": "fine"})
    assert reply in pod.reply_to("hello")
    assert len(pod.model_calls()) == calls


def test_a_refused_provider_is_left_alone_for_a_while(pod):
    pod.start()
    pod.queue({"status": 401})
    pod.reply_to("hello")
    assert pod.reply_to("hello?").startswith("Something went wrong")
    assert len(pod.model_calls()) == 1


def test_a_changed_configuration_works_without_a_restart(pod):
    pod.start()
    pod.config["channels"]["telegram"]["allowFrom"].append(MIA)
    pod.config["agents"]["defaults"]["thinkingDefault"] = "off"
    pod.mount()
    eventually(lambda: "config reloaded" in pod.log())
    pod.reply_to("hello", MIA)
    assert pod.model_calls()[0]["usage"]["reasoning_tokens"] == 0
    pod.config["channels"]["telegram"]["allowFrom"] = []
    pod.mount()
    eventually(lambda: "reload skipped" in pod.log())
    pod.reply_to("still there?", MIA)


def test_the_anthropic_form_works_too(pod):
    pod.config["models"]["providers"]["box"]["api"] = "anthropic-messages"
    pod.start()
    assert "hello" in pod.reply_to("hello")
    call = pod.model_calls()[0]
    assert call["path"] == "/v1/messages"
    assert {"x-api-key", "anthropic-version"} <= set(call["header_names"])
    assert call["usage"]["reasoning_tokens"] > 0


def test_a_turn_on_its_way_is_finished_before_the_end(pod):
    pod.start()
    pod.queue({"text": "just in time", "delay_seconds": 1})
    pod.write("hurry")
    eventually(lambda: any(pod.folder.glob("state/telegram/spool/*.json")))
    assert pod.stop() == 0
    assert pod.replies() == ["just in time"]


def test_a_message_that_a_crash_left_open_is_answered_afterwards(pod):
    pod.start()
    pod.queue({"text": "lost", "delay_seconds": 5})
    pod.write("are you there?")
    eventually(lambda: any(pod.folder.glob("state/telegram/spool/*.json")))
    pod.stop(signal.SIGKILL)
    pod.start()
    # The crash may come before or after the model took the first question.
    assert eventually(pod.replies)[0] == "lost" or "are you there?" in pod.replies()[0]


def test_health_tells_what_fails_and_to_whom(pod):
    pod.environment["TELEGRAM_BOT_TOKEN"] = f"123456789:{'A' * 35}"
    pod.start(is_awaited=False)
    eventually(lambda: pod.health("/startupz").get("ok"))
    assert pod.health("/healthz") == {"ok": True, "status": "live"}
    assert pod.health("/startupz") == {"ok": True, "status": "started"}
    assert pod.health("/readyz") == {"ready": False, "failing": ["telegram"]}
    details = pod.health("/readyz", authorization=f"Bearer {GATEWAY_TOKEN}")
    assert details["reasons"] == {"telegram": "401 Unauthorized"}


def test_a_second_agent_on_the_same_bot_shows_as_failing(pod):
    pod.start()
    pod.telegram.http.get(f"/bot{pod.bot['token']}/getUpdates")
    eventually(lambda: pod.health("/readyz").get("failing") == ["telegram"])
    eventually(lambda: pod.health("/readyz").get("ready"), 15)


@pytest.mark.parametrize(
    ("change", "issue"),
    [
        (lambda config: config.update(gatway={}), "gatway: unknown key"),
        (lambda config: config["channels"]["telegram"].update(allowFrom=[]), "allowlist is empty"),
        (lambda config: config["models"]["providers"].clear(), "no provider for"),
        (lambda config: config["agents"]["defaults"].update(thinkingDefault="hard"), "no level"),
    ],
    ids=["unknown key", "empty allowlist", "no provider", "no level"],
)
def test_an_invalid_configuration_ends_the_start(pod, change, issue):
    change(pod.config)
    pod.start(is_awaited=False)
    assert pod.process.wait(timeout=20) == 78
    assert issue in pod.log()


def test_logs_hold_neither_secrets_nor_words(pod):
    pod.start()
    pod.queue({"text": "the answer nobody should see"})
    pod.reply_to("the question nobody should see")
    pod.telegram.http.post(
        "/_control/faults",
        json={"method": "getUpdates", "error_code": 500, "description": "Internal", "times": 1},
    )
    pod.write("one more")
    eventually(lambda: "telegram failed" in pod.log())
    log = pod.log()
    assert "nobody should see" not in log
    assert not any(secret in log for secret in (KEY, pod.bot["token"], GATEWAY_TOKEN))


@pytest.mark.skipif(
    os.geteuid() != 0 or sys.platform != "linux", reason="needs root, and /proc to look at"
)
def test_root_is_given_up_before_the_work_begins(pod):
    nobody = 65534
    pod.environment |= {"RUN_AS_UID": str(nobody), "RUN_AS_GID": str(nobody)}
    for parent in [pod.folder, *pod.folder.parents][:4]:
        parent.chmod(parent.stat().st_mode | 0o011)
    (pod.folder / "state").mkdir()
    os.chown(pod.folder / "state", nobody, nobody)
    pod.start()
    assert "hello" in pod.reply_to("hello")
    status = Path(f"/proc/{pod.process.pid}/status").read_text()
    assert re.search(r"^Uid:\s+65534\s+65534\s+65534", status, re.MULTILINE)
    assert re.search(r"^Groups:\s*$", status, re.MULTILINE)
