import json
from dataclasses import replace

import pytest

from openclaw_web.boxes.openclaw_config import Assistant, render, user_text
from openclaw_web.core.errors import ValidationError

ASSISTANT = Assistant(
    telegram_user_ids=(111222333, 444),
    language="de",
    model="kimi-coding/k2p5",
    thinking_level="high",
    generation=7,
    proxy_url="http://proxy.example/proxy/v1",
)


def config(assistant=ASSISTANT):
    return json.loads(render(assistant))


def test_the_model_is_ours_by_its_bare_name():
    made = config()
    provider = made["models"]["providers"]["box"]
    assert made["agents"]["defaults"]["model"]["primary"] == "box/k2p5"
    assert provider["models"][0]["id"] == "k2p5"
    assert provider["models"][0]["compat"] == {"supportsReasoningEffort": True}
    assert provider["baseUrl"] == "http://proxy.example/proxy/v1"
    assert provider["headers"] == {"X-OpenClaw-Generation": "7"}
    assert made["agents"]["defaults"]["thinkingDefault"] == "high"


def test_secrets_are_named_and_not_written():
    made = config()
    assert made["models"]["providers"]["box"]["apiKey"] == "${OPENCLAW_PROXY_TOKEN}"
    assert made["channels"]["telegram"]["botToken"] == "${TELEGRAM_BOT_TOKEN}"
    assert made["gateway"]["auth"] == {"mode": "token", "token": "${OPENCLAW_GATEWAY_TOKEN}"}


def test_only_the_chosen_people_may_write_and_the_first_owns_it():
    made = config()
    assert made["channels"]["telegram"]["allowFrom"] == [111222333, 444]
    assert made["channels"]["telegram"]["dmPolicy"] == "allowlist"
    assert made["commands"]["ownerAllowFrom"] == ["telegram:111222333"]
    assert made["session"]["dmScope"] == "per-channel-peer"


def test_it_calls_nobody_by_itself():
    made = config()
    assert made["agents"]["defaults"]["heartbeat"] == {"every": "0m"}
    assert made["plugins"]["entries"]["memory-core"]["config"]["dreaming"]["enabled"] is False
    assert made["update"]["checkOnStart"] is False


def test_another_telegram_is_named_the_public_one_is_not():
    assert "apiRoot" not in config()["channels"]["telegram"]
    other = replace(ASSISTANT, telegram_url="http://127.0.0.1:9000/")
    assert config(other)["channels"]["telegram"]["apiRoot"] == "http://127.0.0.1:9000"


def test_an_assistant_without_people_is_refused():
    with pytest.raises(ValidationError):
        render(replace(ASSISTANT, telegram_user_ids=()))


def test_an_unknown_thinking_level_is_refused():
    with pytest.raises(ValidationError):
        render(replace(ASSISTANT, thinking_level="deep"))


def test_its_person_is_told_in_their_language_and_in_one_line_each():
    text = user_text(replace(ASSISTANT, use_case="plan\n# my week", style="short"))
    assert "Language: German (de)" in text
    assert "- What they want you for: plan # my week" in text
    assert "- How they like your answers: short" in text


def test_a_long_text_is_cut_where_openclaw_would():
    assert len(user_text(replace(ASSISTANT, use_case="x" * 9_000))) == 4_000
