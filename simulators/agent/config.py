"""OpenClaw's configuration file, as far as the stand-in follows it.

The file is JSON (OpenClaw also takes JSON5). An unknown key in the sections that we know by heart
is refused, as OpenClaw does it everywhere.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_PORT = 18789
DEFAULT_API_ROOT = "https://api.telegram.org"
DEFAULT_TIMEOUT_SECONDS = 120
DEFAULT_MAX_TOKENS = 8192
APIS = ("openai-completions", "anthropic-messages")
POLICIES = ("allowlist", "open", "disabled")
THINKING_LEVELS = frozenset(
    {"off", "minimal", "low", "medium", "high", "xhigh", "adaptive", "max", "ultra"}
)
KNOWN_KEYS = {
    "": "gateway update discovery commands agents models channels plugins tools session telemetry"
    " env logging diagnostics ui messages approvals cron hooks web skills memory meta secrets auth",
    "gateway": "mode port bind auth controlUi reload remote tls http trustedProxies nodes",
    "channels.telegram": "enabled botToken tokenFile dmPolicy allowFrom groupPolicy groupAllowFrom"
    " groups configWrites errorPolicy apiRoot proxy webhookUrl webhookSecret webhookPath accounts"
    " commands customCommands capabilities streaming textChunkLimit chunkMode linkPreview"
    " reactionLevel reactionNotifications ackReaction replyToMode historyLimit dmHistoryLimit"
    " mediaMaxMb timeoutSeconds retry network actions name markdown heartbeat",
}
VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")

Json = dict[str, Any]


class ConfigError(Exception):
    """The file cannot be used; `issues` say where and why."""

    def __init__(self, issues: list[str]) -> None:
        super().__init__("; ".join(issues))
        self.issues = issues


@dataclass(frozen=True, kw_only=True)
class Model:
    """The model to ask and how to reach it."""

    id: str
    provider: str
    api: str
    base_url: str
    api_key: str
    headers: Mapping[str, str]
    timeout_seconds: float
    max_tokens: int
    reasoning_effort: str | None
    thinking: str


@dataclass(frozen=True, kw_only=True)
class Telegram:
    token: str
    api_root: str
    policy: str
    allowed_ids: frozenset[int]
    is_silent_on_errors: bool

    def may_write(self, person_id: int) -> bool:
        if self.policy == "open":
            return True
        return self.policy == "allowlist" and person_id in self.allowed_ids


@dataclass(frozen=True, kw_only=True)
class Config:
    port: int
    gateway_token: str
    model: Model
    telegram: Telegram | None
    has_session_per_person: bool
    workspace: str | None
    warnings: list[str] = field(default_factory=list)


def load(path: Path, environment: Mapping[str, str]) -> Config:
    """Read, substitute and check the file.

    Raises:
        ConfigError: it is missing, is no JSON object, or says something that cannot be done.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error
    except ValueError as error:
        raise ConfigError([f"{path}: not valid JSON ({error})"]) from error
    if not isinstance(raw, dict):
        raise ConfigError([f"{path}: expected an object"])
    return _Reader(raw, environment).read()


class _Reader:
    def __init__(self, raw: Json, environment: Mapping[str, str]) -> None:
        self.issues: list[str] = []
        self.warnings: list[str] = []
        self._environment = environment
        self._raw: Json = self._substituted(raw)

    def read(self) -> Config:
        for place, known in KNOWN_KEYS.items():
            for key in sorted(set(self._section(place)) - set(known.split())):
                self.issues.append(f"{place}.{key}".lstrip(".") + ": unknown key")
        model = self._model()
        telegram = self._telegram()
        if self.issues or model is None:
            raise ConfigError(self.issues)
        defaults = self._section("agents.defaults")
        return Config(
            port=self._integer("gateway.port", DEFAULT_PORT),
            gateway_token=str(self._get("gateway.auth.token") or ""),
            model=model,
            telegram=telegram,
            has_session_per_person=self._get("session.dmScope") not in {None, "main"},
            workspace=defaults.get("workspace"),
            warnings=self.warnings,
        )

    def _model(self) -> Model | None:
        primary = self._primary()
        provider_name, _, model_id = primary.partition("/")
        providers = self._section("models.providers")
        provider = providers.get(provider_name)
        if not isinstance(provider, dict):
            self.issues.append(f"agents.defaults.model.primary: no provider for {primary!r}")
            return None
        place = f"models.providers.{provider_name}"
        listed = [one for one in provider.get("models") or [] if isinstance(one, dict)]
        details = next((one for one in listed if one.get("id") == model_id), None)
        if details is None:
            self.issues.append(f"{place}.models: no model {model_id!r}")
        if not str(provider.get("baseUrl", "")).startswith(("http://", "https://")):
            self.issues.append(f"{place}.baseUrl: expected an http(s) address")
        api = provider.get("api", APIS[0])
        if api not in APIS:
            self.issues.append(f"{place}.api: the stand-in speaks {' and '.join(APIS)}")
        if self.issues or details is None:
            return None
        return self._made_model(provider_name, provider, details, api)

    def _made_model(self, name: str, provider: Json, details: Json, api: str) -> Model:
        thinking = self._thinking()
        has_effort = (details.get("compat") or {}).get("supportsReasoningEffort") is True
        effort = (details.get("thinkingLevelMap") or {}).get(thinking, thinking)
        return Model(
            id=details["id"],
            provider=name,
            api=api,
            base_url=provider["baseUrl"].rstrip("/"),
            api_key=str(provider.get("apiKey") or ""),
            headers={str(key): str(text) for key, text in (provider.get("headers") or {}).items()},
            timeout_seconds=float(provider.get("timeoutSeconds") or DEFAULT_TIMEOUT_SECONDS),
            max_tokens=int(details.get("maxTokens") or DEFAULT_MAX_TOKENS),
            reasoning_effort=effort if has_effort and thinking != "off" else None,
            thinking=thinking,
        )

    def _primary(self) -> str:
        chosen = self._get("agents.defaults.model")
        primary = chosen.get("primary") if isinstance(chosen, dict) else chosen
        return str(primary or "")

    def _thinking(self) -> str:
        level = self._get("agents.defaults.thinkingDefault") or "off"
        if level not in THINKING_LEVELS:
            self.issues.append(f"agents.defaults.thinkingDefault: {level!r} is no level")
        return str(level)

    def _telegram(self) -> Telegram | None:
        section = self._section("channels.telegram")
        if not section or section.get("enabled") is False:
            return None
        policy = section.get("dmPolicy", "pairing")
        if policy not in POLICIES:
            self.issues.append(f"channels.telegram.dmPolicy: expected {', '.join(POLICIES)}")
        allowed = section.get("allowFrom") or []
        if policy == "allowlist" and not allowed:
            self.issues.append("channels.telegram.allowFrom: the allowlist is empty")
        ids = {str(one).removeprefix("telegram:").removeprefix("tg:") for one in allowed} - {"*"}
        if not all(one.isdigit() for one in ids):
            self.issues.append("channels.telegram.allowFrom: expected numeric ids")
            return None
        if "tokenFile" in section:
            self.issues.append("channels.telegram.tokenFile: the stand-in takes botToken only")
        root = str(section.get("apiRoot") or DEFAULT_API_ROOT)
        return Telegram(
            token=str(section.get("botToken") or ""),
            api_root=root.rstrip("/"),
            policy=str(policy),
            allowed_ids=frozenset(int(one) for one in ids),
            is_silent_on_errors=section.get("errorPolicy") == "silent",
        )

    def _get(self, place: str) -> Any:
        value: Any = self._raw
        for key in place.split(".") if place else []:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def _section(self, place: str) -> Json:
        value = self._get(place)
        if value is not None and not isinstance(value, dict):
            self.issues.append(f"{place}: expected an object")
        return value if isinstance(value, dict) else {}

    def _integer(self, place: str, default: int) -> int:
        value = self._get(place)
        return value if isinstance(value, int) else default

    def _substituted(self, value: Any) -> Any:
        """Put variables in; one that is missing empties its value, and so turns its feature off."""
        if isinstance(value, dict):
            return {key: self._substituted(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self._substituted(one) for one in value]
        if not isinstance(value, str):
            return value
        missing = [name for name in VARIABLE.findall(value) if not self._environment.get(name)]
        if missing:
            self.warnings.append(f"environment variable {missing[0]} is not set")
            return ""
        return VARIABLE.sub(lambda match: self._environment[match.group(1)], value)
