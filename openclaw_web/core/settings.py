"""What the deployment decides: read once at start, from the environment and the state folder.

On a laptop the supervisor writes `stack.env` (0600) into the state folder, so that every command
typed in another shell talks to the same stack. The environment wins over that file; production
never reads it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from openclaw_web.core import openings
from openclaw_web.core.errors import SettingsError

PRODUCTION = "production"
LOCAL = "local"
YES = "yes"
STACK_FILE = "stack.env"
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting.

    The environment variable is the field's name in capitals, unless `env` says otherwise. What is
    secret is left out of the text of this object, which may end in a log.
    """

    environment: str = field(default=LOCAL, metadata={"env": "OPENCLAW_CLOUD_ENV"})
    home: Path = field(default=Path(".openclaw-cloud"), metadata={"env": "OPENCLAW_CLOUD_HOME"})
    host: str = "127.0.0.1"
    port: int = 3000
    proxy_internal_port: int = 0
    public_url: str = ""
    trusted_proxies: str = ""
    log_level: str = "INFO"
    secret_key: str = field(default="", repr=False)
    encryption_keys: str = field(default="", repr=False)

    database_url: str = field(default="", repr=False)
    redis_url: str = field(default="", repr=False)

    stripe_secret_key: str = field(default="", repr=False)
    stripe_webhook_secret: str = field(default="", repr=False)
    stripe_api_url: str = "https://api.stripe.com"

    upstream_url: str = "https://api.kimi.com/coding/v1"
    upstream_key: str = field(default="", repr=False, metadata={"env": "KIMI_API_KEY"})
    upstream_model: str = "kimi-for-coding"
    upstream_ca_file: str = ""
    upstreams_file: str = ""

    telegram_api_url: str = "https://api.telegram.org"
    telegram_link_url: str = "https://t.me"

    smtp_url: str = field(default="", repr=False)
    mail_from: str = "OpenClaw Cloud <hello@openclaw.invalid>"

    kubeconfig: str = ""
    cluster_name: str = "default"
    worker_jobs: int = 4
    box_image: str = "ghcr.io/openclaw/openclaw:2026.9.6"
    box_proxy_url: str = ""
    box_dns_cidrs: str = ""
    box_storage_class: str = ""
    box_runtime_class: str = ""
    allow_shared_kernel: str = ""
    box_snapshot_class: str = ""
    box_snapshot_hours: int = 24
    box_snapshot_days: int = 7
    box_denied_tools: str = ""

    backup_url: str = field(default="", repr=False)
    keeper_image: str = ""

    dev_services: str = ""

    @property
    def backup_place(self) -> str:
        """Where backups lie: on a laptop a folder beside everything else."""
        return self.backup_url or f"file://{self.home}/backups"

    @property
    def is_production(self) -> bool:
        return self.environment == PRODUCTION

    @property
    def cookies_are_secure(self) -> bool:
        return urlsplit(self.public_url).scheme == "https"


def load(environment: Mapping[str, str]) -> Settings:
    """Read settings from the environment, over the state folder's file.

    Raises:
        SettingsError: a value has the wrong form; the sentence names the setting.
    """
    home = Path(environment.get("OPENCLAW_CLOUD_HOME") or ".openclaw-cloud").expanduser().resolve()
    stored = {} if environment.get("OPENCLAW_CLOUD_ENV") == PRODUCTION else read_stack_file(home)
    found = {**stored, **{name: value for name, value in environment.items() if value}}
    values: dict[str, Any] = {
        known.name: _parsed(known.name, known.type, found[name])
        for known in fields(Settings)
        if (name := variable(known.name)) in found
    }
    values["home"] = home
    loaded = Settings(**values)
    public_url = loaded.public_url.rstrip("/") or f"http://localhost:{loaded.port}"
    return replace(loaded, public_url=public_url)


def variable(field_name: str) -> str:
    """Return the environment variable of a setting."""
    known = next(one for one in fields(Settings) if one.name == field_name)
    return known.metadata.get("env", field_name.upper())


def variable_named(name: str) -> str:
    """Return a variable that a file of the deployment names, or "" where it is not set."""
    return os.environ.get(name, "").strip()


def read_stack_file(home: Path) -> dict[str, str]:
    """Return what the supervisor of this state folder wrote, or nothing."""
    path = home / STACK_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)


@cache
def settings() -> Settings:
    """Return this process's settings, read at the first call."""
    return load(os.environ)


def problems(chosen: Settings) -> list[str]:
    """Return why these settings must not start, one sentence each; an empty list means they may."""
    if chosen.environment not in {PRODUCTION, LOCAL}:
        return [
            f"OPENCLAW_CLOUD_ENV is {chosen.environment!r}; it must be {PRODUCTION} or {LOCAL}."
        ]
    return [
        *_missing(chosen),
        *_port_problems(chosen),
        *_snapshot_problems(chosen),
        *_opening_problems(chosen),
        *(_production_problems(chosen) if chosen.is_production else _local_problems(chosen)),
    ]


def require(chosen: Settings) -> None:
    """Refuse to start with settings that cannot work.

    Raises:
        SettingsError: all problems, one a line.
    """
    if found := problems(chosen):
        raise SettingsError("\n".join(found))


def _missing(chosen: Settings) -> list[str]:
    needed = ("secret_key", "database_url", "redis_url")
    return [
        f"{variable(name)} is not set; run `make run`, or name the server in the environment."
        for name in needed
        if not getattr(chosen, name)
    ]


def _snapshot_problems(chosen: Settings) -> list[str]:
    return [
        f"{variable(name)} must be at least 1; BOX_SNAPSHOT_CLASS=off makes no snapshots."
        for name in ("box_snapshot_hours", "box_snapshot_days")
        if getattr(chosen, name) < 1
    ]


def _opening_problems(chosen: Settings) -> list[str]:
    """Return what the network policy of boxes would leave closed."""
    told = {
        "box_dns_cidrs": openings.name_server_problem(chosen.box_dns_cidrs),
        "box_proxy_url": chosen.box_proxy_url and openings.address_problem(chosen.box_proxy_url),
        "telegram_api_url": openings.NO_SERVICE
        if openings.is_service(urlsplit(chosen.telegram_api_url).hostname or "")
        else openings.address_problem(chosen.telegram_api_url),
    }
    return [f"{variable(name)} {problem}" for name, problem in told.items() if problem]


def _port_problems(chosen: Settings) -> list[str]:
    if chosen.proxy_internal_port == chosen.port:
        return ["PROXY_INTERNAL_PORT is PORT; boxes and the world need a port each."]
    return []


def _production_problems(chosen: Settings) -> list[str]:
    needed = (
        "stripe_secret_key",
        "stripe_webhook_secret",
        *(() if chosen.upstreams_file else ("upstream_key",)),  # the file names the keys
        "smtp_url",
        "box_proxy_url",
        "backup_url",
        "keeper_image",
    )
    found = [
        f"{variable(name)} is not set; production needs it."
        for name in needed
        if not getattr(chosen, name)
    ]
    addresses = (
        "stripe_api_url",
        "upstream_url",
        "telegram_api_url",
        "telegram_link_url",
        "public_url",
        "box_proxy_url",
    )
    found += [
        f"{variable(name)} points at this machine; production refuses simulators."
        for name in addresses
        if urlsplit(getattr(chosen, name)).hostname in LOOPBACK_NAMES
    ]
    if not chosen.box_runtime_class and chosen.allow_shared_kernel != YES:
        found.append(
            "BOX_RUNTIME_CLASS is not set, so the boxes of all customers would share their node's"
            " kernel: name a sandboxed runtime, such as gvisor, or set ALLOW_SHARED_KERNEL=yes."
        )
    if urlsplit(chosen.public_url).scheme != "https":
        found.append("PUBLIC_URL must start with https:// in production.")
    if chosen.mail_from == Settings.mail_from:
        found.append("MAIL_FROM is not set; production needs a sender that can be answered.")
    if chosen.dev_services:
        found.append("DEV_SERVICES is set; production has no /dev pages.")
    if not chosen.proxy_internal_port:
        found.append("PROXY_INTERNAL_PORT is not set; in production boxes call the proxy there.")
    if "*" in chosen.trusted_proxies:
        found.append("TRUSTED_PROXIES is a star; anybody could then name any sender: list them.")
    return found


def _local_problems(chosen: Settings) -> list[str]:
    found = []
    if chosen.stripe_secret_key.startswith(("sk_live_", "rk_live_")):
        found.append(
            "STRIPE_SECRET_KEY is a live key; set OPENCLAW_CLOUD_ENV=production to use it."
        )
    if chosen.host not in LOOPBACK_NAMES:
        found.append(
            "HOST is not a loopback address; set OPENCLAW_CLOUD_ENV=production to be reachable."
        )
    return found


def _parsed(name: str, kind: object, value: str) -> object:
    if kind is int:
        try:
            return int(value)
        except ValueError as error:
            raise SettingsError(
                f"{variable(name)} must be a whole number, not {value!r}."
            ) from error
    return Path(value) if kind is Path else value
