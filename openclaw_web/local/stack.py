"""Everything that one embedded stack consists of: which services, where, with which keys."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from openclaw_web.local import box_images, frontend, keys, ports, postgres, valkey
from openclaw_web.local.children import Command
from openclaw_web.local.places import Places, write_secret
from openclaw_web.local.postgres import Postgres
from openclaw_web.local.services import Kind, Service
from openclaw_web.local.valkey import Valkey

CLUSTER = "KUBECONFIG"  # the worker alone is told: no other process of ours enters the cluster
# A part of the stack, and the environment variables that say "use mine instead".
REPLACED_BY: Mapping[str, tuple[str, ...]] = {
    "postgres": ("DATABASE_URL",),
    "valkey": ("REDIS_URL",),
    "kubernetes": (CLUSTER,),
    "stripe": ("STRIPE_SECRET_KEY",),
    "kimi": ("KIMI_API_KEY", "UPSTREAM_URL", "UPSTREAMS_FILE"),
    "telegram": ("TELEGRAM_API_URL",),
    "mail": ("SMTP_URL",),
}
TITLES = {
    "postgres": "PostgreSQL",
    "valkey": "Valkey",
    "kubernetes": "Kubernetes",
    "stripe": "Stripe",
    "kimi": "Kimi",
    "telegram": "Telegram",
    "mail": "Mail",
}
PAGES = {  # the path under /dev of each simulator's pages
    "kubernetes": "cluster",
    "stripe": "stripe",
    "kimi": "kimi",
    "telegram": "phone",
    "mail": "inbox",
}
STEPS = ("worker and web", "simulators", "servers")  # the order of ending
WORKER_SIGN = "worker.alive"  # the worker writes it into the state folder every few seconds
BUILD_SECONDS = 600.0
TASK_SECONDS = 120.0
WORKER_GRACE_SECONDS = 4.0
SIMULATOR_GRACE_SECONDS = 4.0


@dataclass(frozen=True, kw_only=True)
class Stack:
    """One stack: folders, the port people use, the other ports, the environment of its start."""

    places: Places
    port: int
    ports: Mapping[str, int]
    environment: Mapping[str, str]

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def has(self, part: str) -> bool:
        """Say whether we run this part ourselves."""
        return not any(self.environment.get(name) for name in REPLACED_BY[part])

    def page(self, part: str) -> str:
        return f"{self.url}/dev/{PAGES[part]}"

    def loopback(self, part: str) -> str:
        return f"http://{ports.LOOPBACK}:{self.ports[part]}"

    @property
    def postgres(self) -> Postgres:
        return Postgres(
            folder=self.places.postgres,
            port=self.ports["postgres"],
            password=keys.keep(self.places.secret("postgres"), keys.password),
            identity=self.places.identity,
        )

    @property
    def valkey(self) -> Valkey:
        return Valkey(
            folder=self.places.valkey,
            port=self.ports["valkey"],
            password=keys.keep(self.places.secret("valkey"), keys.password),
        )

    @property
    def simulator_token(self) -> Path:
        return self.places.secret("simulator-token")

    @property
    def kubeconfig(self) -> Path:
        return Path(self.environment.get(CLUSTER) or self.places.home / "kubeconfig")


PORT_NAMES = (*TITLES, "smtp")


def settings_of(stack: Stack) -> dict[str, str]:
    """Return the settings of all processes of this stack; the environment's own win.

    Where the cluster is only the worker learns, from its environment.
    """
    made: dict[str, str] = {
        "PORT": str(stack.port),
        "PUBLIC_URL": stack.url,
        "SECRET_KEY": keys.keep(stack.places.secret("server-key"), keys.server_key),
    }
    dev_pages: dict[str, str] = {}
    for part in TITLES:
        if stack.has(part):
            made |= _settings_of_part(stack, part)
            if part in PAGES:
                dev_pages[PAGES[part]] = stack.loopback(part)
    if dev_pages:
        keys.keep(stack.simulator_token, keys.password)
        services = {**dev_pages, "token_file": str(stack.simulator_token)}
        made["DEV_SERVICES"] = json.dumps(services, separators=(",", ":"))
    given = {name for names in REPLACED_BY.values() for name in names} | set(made) | KEPT_IF_GIVEN
    given.discard(CLUSTER)
    return made | {name: stack.environment[name] for name in given if stack.environment.get(name)}


KEPT_IF_GIVEN = {
    "STRIPE_API_URL",
    "STRIPE_WEBHOOK_SECRET",
    "TELEGRAM_LINK_URL",
    "BOX_IMAGE",
    "BACKUP_URL",
    "KEEPER_IMAGE",
    "ENCRYPTION_KEYS",
    "BOX_PROXY_URL",
    "MAIL_FROM",
}


def write_settings(stack: Stack, extra: Mapping[str, str] | None = None) -> None:
    """Write the file that every other process and shell reads its settings from."""
    lines = [f"{name}={value}" for name, value in {**settings_of(stack), **(extra or {})}.items()]
    write_secret(stack.places.stack_file, "\n".join(lines) + "\n")


def services_of(stack: Stack) -> list[Service]:
    """Return what the supervisor runs, in the order of the screen."""
    found = [
        *([_postgres(stack)] if stack.has("postgres") else []),
        *([_valkey(stack)] if stack.has("valkey") else []),
        *(_simulator(stack, part) for part in PAGES if stack.has(part)),
    ]
    everything = tuple(one.name for one in found)
    key = frontend.build_key(stack.port)
    build = _ours(stack, "build", "Pages (built)", kind=Kind.TASK, start_seconds=BUILD_SECONDS)
    pages = [] if frontend.is_fresh(stack.places.web, key) else [build]
    first_steps = _ours(
        stack,
        "prepare",
        "Tables and keys",
        options=[
            *(["--own-database"] if stack.has("postgres") else []),
            *(["--own-stripe"] if stack.has("stripe") else []),
        ],
        kind=Kind.TASK,
        needs=tuple(name for name in everything if name in {"postgres", "valkey", "stripe"}),
        start_seconds=TASK_SECONDS,
    )
    web = _ours(
        stack,
        "web",
        "Website",
        needs=("prepare", "build"),
        is_ready=partial(ports.answers, stack.port),
        port=stack.port,
        address=stack.url,
    )
    alive = stack.places.home / WORKER_SIGN
    worker = _ours(
        stack,
        "worker",
        "Operator",
        needs=("prepare", *everything),
        more_environment={CLUSTER: str(stack.kubeconfig)},
        is_ready=alive.exists,
        sign_of_life=alive,
    )
    return [*found, *pages, first_steps, web, worker]


def child_environment(stack: Stack) -> dict[str, str]:
    """Return the environment of our own processes: they read the rest from the state folder."""
    return {
        **{name: value for name, value in stack.environment.items() if name != CLUSTER},
        "OPENCLAW_CLOUD_HOME": str(stack.places.home),
        "PATH": os.pathsep.join(
            (str(Path(sys.executable).parent), stack.environment.get("PATH", ""))
        ),
        "PORT": str(stack.port),
        "PYTHONUNBUFFERED": "1",
        "MALLOC_ARENA_MAX": "2",  # threads on glibc otherwise reserve an arena each
    }


def _settings_of_part(stack: Stack, part: str) -> dict[str, str]:
    here = f"http://{ports.LOOPBACK}:{stack.ports[part]}"
    secret = stack.places.secret
    makers: dict[str, Callable[[], dict[str, str]]] = {
        "postgres": lambda: {"DATABASE_URL": stack.postgres.url()},
        "valkey": lambda: {"REDIS_URL": stack.valkey.url},
        "kubernetes": lambda: {
            "BOX_IMAGE": box_images.BOX_IMAGE,
            "KEEPER_IMAGE": box_images.KEEPER_IMAGE,
            "BOX_DENIED_TOOLS": box_images.denied_tools(stack.places),
            "BOX_PROXY_URL": f"http://{ports.LOOPBACK}:{stack.port}/proxy/v1",
        },
        "stripe": lambda: {
            "STRIPE_SECRET_KEY": keys.keep(secret("stripe-key"), keys.stripe_key),
            "STRIPE_API_URL": here,
        },
        "kimi": lambda: {
            "KIMI_API_KEY": keys.keep(secret("kimi-key"), keys.kimi_key),
            "UPSTREAM_URL": f"{here}/v1",
        },
        "telegram": lambda: {
            "TELEGRAM_API_URL": here,
            "TELEGRAM_LINK_URL": f"{stack.page(part)}/t.me",
        },
        "mail": lambda: {"SMTP_URL": f"smtp://{ports.LOOPBACK}:{stack.ports['smtp']}"},
    }
    return makers[part]()


def _postgres(stack: Stack) -> Service:
    def prepare() -> Command:
        postgres.prepare(stack.postgres)
        return postgres.command(stack.postgres)

    port = stack.ports["postgres"]
    return Service(
        name="postgres",
        title=TITLES["postgres"],
        prepare=prepare,
        is_ready=partial(postgres.accepts_connections, port),
        port=port,
        address=f"postgresql://{postgres.USER}@{ports.LOOPBACK}:{port}/{postgres.DATABASE}",
        ending=STEPS.index("servers"),
    )


def _valkey(stack: Stack) -> Service:
    def prepare() -> Command:
        valkey.prepare(stack.valkey)
        return valkey.command(stack.valkey)

    port = stack.ports["valkey"]
    return Service(
        name="valkey",
        title=TITLES["valkey"],
        prepare=prepare,
        is_ready=lambda: valkey.accepts_connections(stack.valkey),
        port=port,
        address=f"redis://{ports.LOOPBACK}:{port}/0",
        ending=STEPS.index("servers"),
    )


def _simulator(stack: Stack, part: str) -> Service:
    def prepare() -> Command:
        words = [sys.executable, "-m", f"simulators.{part}", *_simulator_options(stack, part)]
        return Command(
            words=words,
            environment=child_environment(stack),
            grace_seconds=SIMULATOR_GRACE_SECONDS,
        )

    return Service(
        name=part,
        title=TITLES[part],
        prepare=prepare,
        is_ready=partial(ports.answers, stack.ports[part]),
        port=stack.ports[part],
        address=stack.page(part),
        ending=STEPS.index("simulators"),
    )


def _simulator_options(stack: Stack, part: str) -> list[str]:
    places = stack.places
    common = [
        *("--port", str(stack.ports[part])),
        *("--state", str(places.cluster if part == "kubernetes" else places.simulators / part)),
        *("--public-url", stack.page(part)),
        *("--token-file", str(stack.simulator_token)),
    ]
    if part in {"stripe", "kimi"}:
        return [*common, "--key-file", str(places.secret(f"{part}-key"))]
    if part == "mail":
        return [*common, "--smtp-port", str(stack.ports["smtp"])]
    if part == "kubernetes":
        return [*common, *_cluster_options(stack)]
    return common


def _cluster_options(stack: Stack) -> list[str]:
    identity = stack.places.identity
    return [
        *("--images", str(box_images.write(stack.places))),
        *("--kubeconfig", str(stack.kubeconfig)),
        *("--volumes", str(stack.places.volumes)),
        *(("--run-as", str(identity)) if identity else ()),
    ]


def _ours(
    stack: Stack,
    subcommand: str,
    title: str,
    *,
    options: Sequence[str] = (),
    needs: Sequence[str] = (),
    more_environment: Mapping[str, str] | None = None,
    **more: Any,
) -> Service:
    """Return a service that is a command of our own, with its settings in the state folder."""
    sign = more.get("sign_of_life")

    def prepare() -> Command:
        if sign is not None:
            sign.unlink(missing_ok=True)
        return Command(
            words=[sys.executable, "-m", "openclaw_web", subcommand, *options],
            environment={**child_environment(stack), **(more_environment or {})},
            grace_seconds=WORKER_GRACE_SECONDS,
        )

    return Service(name=subcommand, title=title, prepare=prepare, needs=tuple(needs), **more)
