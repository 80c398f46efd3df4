"""The configuration of one OpenClaw: `openclaw.json` and the text that tells it about its person.

Secrets are named by environment variables and never stand in the file. Checked with
`openclaw config validate` of OpenClaw 2026.9.6: an unknown key makes the gateway refuse to start.
"""

import json
from dataclasses import dataclass
from typing import Any

from openclaw_web.core.errors import ValidationError

PORT = 18789
PROVIDER = "box"  # a vendor's own name would make OpenClaw install that vendor's plugin at start
GENERATION_HEADER = "X-OpenClaw-Generation"
PUBLIC_TELEGRAM = "https://api.telegram.org"
CONTEXT_TOKENS = 262_144
ANSWER_TOKENS = 32_768
USER_TEXT_CHARACTERS = 4_000  # OpenClaw cuts USER.md there
THINKING_LEVELS = ("off", "minimal", "low", "medium", "high", "xhigh", "max")
LANGUAGES = {
    "ar": "Arabic",
    "cs": "Czech",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "hi": "Hindi",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "ru": "Russian",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}
DENIED_TOOLS = ("computer", "openclaw", "browser", "canvas", "nodes", "gateway")
# OpenClaw reads USER.md from its workspace only, so it is put there before it starts; again only
# when ours has changed, since the assistant may have written its own notes into it.
PUT_USER_FILE = (
    "sh",
    "-c",
    """set -e; folder="$OPENCLAW_STATE_DIR/workspace" kept="$OPENCLAW_STATE_DIR/.user.md"
mkdir -p "$folder"
if ! cmp -s "$OPENCLAW_USER_MD" "$kept" || ! [ -e "$folder/USER.md" ]; then
  rm -f "$folder/USER.md" "$kept"
  cat "$OPENCLAW_USER_MD" > "$folder/USER.md"
  cat "$OPENCLAW_USER_MD" > "$kept"
fi""",
)


@dataclass(frozen=True, kw_only=True)
class Assistant:
    """What makes one assistant different from another."""

    telegram_user_ids: tuple[int, ...]
    language: str
    model: str
    thinking_level: str
    generation: int
    proxy_url: str
    telegram_url: str = PUBLIC_TELEGRAM
    use_case: str = ""
    style: str = ""
    time_zone: str = "UTC"
    denied_tools: tuple[str, ...] = ()


def model_id(model: str) -> str:
    """Return the bare name of a model: the last segment of `provider/name`."""
    return model.rsplit("/", 1)[-1]


def render(assistant: Assistant) -> str:
    """Return the text of openclaw.json; the same assistant gives the same text.

    Raises:
        ValidationError: nobody may talk to it, or its thinking level is unknown.
    """
    if not assistant.telegram_user_ids:
        raise ValidationError("An assistant needs at least one Telegram user who may talk to it.")
    if assistant.thinking_level not in THINKING_LEVELS:
        raise ValidationError(f"There is no thinking level {assistant.thinking_level!r}.")
    return json.dumps(_document(assistant), indent=2, sort_keys=True)


def user_text(assistant: Assistant) -> str:
    """Return USER.md: language, purpose and tone, as plain sentences."""
    name = LANGUAGES.get(assistant.language, assistant.language)
    lines = [
        "# The person you help",
        "",
        f"- Language: {name} ({assistant.language}). Answer in it unless asked for another one.",
    ]
    if assistant.use_case:
        lines.append(f"- What they want you for: {_one_line(assistant.use_case)}")
    if assistant.style:
        lines.append(f"- How they like your answers: {_one_line(assistant.style)}")
    return "\n".join([*lines, ""])[:USER_TEXT_CHARACTERS]


def _document(assistant: Assistant) -> dict[str, Any]:
    return {
        "gateway": {
            "mode": "local",
            "port": PORT,
            "bind": "lan",
            "auth": {"mode": "token", "token": "${OPENCLAW_GATEWAY_TOKEN}"},
            "controlUi": {"enabled": False},
            "reload": {"mode": "hybrid"},
        },
        "update": {"checkOnStart": False},
        "discovery": {"mdns": {"mode": "off"}},
        "commands": {"ownerAllowFrom": [f"telegram:{assistant.telegram_user_ids[0]}"]},
        "agents": {"defaults": _defaults(assistant)},
        "models": _models(assistant),
        "channels": {"telegram": _telegram(assistant)},
        "plugins": {
            "allow": ["telegram", "memory-core"],
            "entries": {"memory-core": {"config": {"dreaming": {"enabled": False}}}},
        },
        "tools": {"deny": [*DENIED_TOOLS, *assistant.denied_tools]},
        # The default puts everybody who may write into one conversation.
        "session": {"dmScope": "per-channel-peer"},
        "telemetry": {"enabled": False},
    }


def _defaults(assistant: Assistant) -> dict[str, Any]:
    return {
        "model": {"primary": f"{PROVIDER}/{model_id(assistant.model)}"},
        "thinkingDefault": assistant.thinking_level,
        "userTimezone": assistant.time_zone,
        "skipBootstrap": True,
        "skills": [],
        # Its own calls every half hour would spend tokens that nobody asked for.
        "heartbeat": {"every": "0m"},
    }


def _models(assistant: Assistant) -> dict[str, Any]:
    name = model_id(assistant.model)
    return {
        "mode": "replace",
        "catalogRefresh": {"enabled": False},
        "providers": {
            PROVIDER: {
                "baseUrl": assistant.proxy_url,
                "apiKey": "${OPENCLAW_PROXY_TOKEN}",
                "api": "openai-completions",
                "headers": {GENERATION_HEADER: str(assistant.generation)},
                "request": {"allowPrivateNetwork": True},
                "models": [
                    {
                        "id": name,
                        "name": "Kimi",
                        "reasoning": True,
                        "input": ["text", "image"],
                        "contextWindow": CONTEXT_TOKENS,
                        "maxTokens": ANSWER_TOKENS,
                        # Without it the thinking level is silently ignored.
                        "compat": {"supportsReasoningEffort": True},
                    }
                ],
            }
        },
    }


def _telegram(assistant: Assistant) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        "enabled": True,
        "botToken": "${TELEGRAM_BOT_TOKEN}",
        "dmPolicy": "allowlist",
        "allowFrom": list(assistant.telegram_user_ids),
        "groupPolicy": "disabled",
        "configWrites": False,
        "errorPolicy": "once",
    }
    if assistant.telegram_url.rstrip("/") != PUBLIC_TELEGRAM:
        chosen["apiRoot"] = assistant.telegram_url.rstrip("/")
    return chosen


def _one_line(text: str) -> str:
    return " ".join(text.split())
