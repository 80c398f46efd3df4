"""Which model providers there are: from three settings, or from a file of the operator's.

The simple case is one provider: UPSTREAM_URL, KIMI_API_KEY (several with commas between them) and
UPSTREAM_MODEL. A file named by UPSTREAMS_FILE replaces them; docs/upstreams.md describes it.
"""

import re
import ssl
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from openclaw_web.core.errors import SettingsError
from openclaw_web.core.settings import LOOPBACK_NAMES, Settings, variable, variable_named
from openclaw_web.gateway.wire import MAX_MODEL_CHARACTERS
from openclaw_web.integrations.upstream import Limits, TimeOuts, pool

KNOWN = Path(__file__).with_name("upstreams.toml")
ALIAS = "k2p5"  # what boxes ask for, whatever it means today
LONGEST_SECONDS = 3_600
MOST_CONNECTIONS = 100_000

_FILE = "UPSTREAMS_FILE"
_HEADER = re.compile(r"^\s*\[\[\s*upstreams\s*\]\]")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}")
_KEY = re.compile(r"[!-~]+")
_PLACE = re.compile(r"(?P<problem>.*) - at `\$\.?(?P<field>.*)`$", re.DOTALL)
_UNKNOWN = re.compile(r"unknown field `(.*)`")

Auth = Literal["x-api-key", "bearer"]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=LONGEST_SECONDS)]


@dataclass(frozen=True, kw_only=True)
class UpstreamConfig:
    """One provider. A form that has no address is not spoken there."""

    name: str
    openai_url: str = ""
    anthropic_url: str = ""  # with everything but "/messages"
    anthropic_auth: Auth = "x-api-key"
    keys: tuple[str, ...] = field(default=(), repr=False)  # none: the provider wants none
    priority: int = 1  # the lowest number is asked first; the same number shares the customers
    models: Mapping[str, str] = field(default_factory=dict)  # our name: the name there
    passes_other_models: bool = True  # under the name that was asked for
    ca_file: str = ""
    time_outs: TimeOuts = field(default_factory=TimeOuts)
    limits: Limits = field(default_factory=Limits)

    def model_there(self, asked: str) -> str:
        """Return what our name for a model is there, or "" for one that it does not have."""
        return self.models.get(asked, asked if self.passes_other_models else "")


_USUAL, _BOUNDS = TimeOuts(), Limits()


class _Known(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    openai_url: str = ""
    anthropic_url: str = ""
    anthropic_auth: Auth = "x-api-key"
    models: dict[str, str] = {}


class _Entry(_Known, forbid_unknown_fields=True, kw_only=True):
    """What may stand below `[[upstreams]]`."""

    name: str
    kind: str = ""
    keys_env: list[str] = []
    priority: int = 1
    passes_other_models: bool = True
    ca_file: str = ""
    connect_seconds: Seconds = _USUAL.connect
    first_byte_seconds: Seconds = _USUAL.first_byte
    idle_seconds: Seconds = _USUAL.idle
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=MOST_CONNECTIONS)] = _BOUNDS.connections
    wait_seconds: Seconds = _BOUNDS.wait_seconds


def load(chosen: Settings) -> tuple[UpstreamConfig, ...]:
    """Return the providers of this deployment, checked.

    Raises:
        SettingsError: all that is wrong, one sentence a line, with the place of each.
    """
    if chosen.upstreams_file:
        return _from_file(Path(chosen.upstreams_file).expanduser(), chosen)
    config = _from_settings(chosen)
    found = [
        *_problems_of_url(config.openai_url, variable("upstream_url")),
        *_problems_of_keys(config.keys, variable("upstream_key")),
        *_problems_of_ca(config.ca_file, variable("upstream_ca_file")),
    ]
    if found:
        raise SettingsError("\n".join(found))
    return (config,)


@cache
def _known() -> dict[str, _Known]:
    table = tomllib.loads(KNOWN.read_text(encoding="utf-8"))
    return msgspec.convert(table, dict[str, _Known])


def _from_settings(chosen: Settings) -> UpstreamConfig:
    url = chosen.upstream_url.rstrip("/")
    name = next((name for name, known in _known().items() if known.openai_url == url), "")
    known = _known().get(name)
    models = {} if known is None else dict(known.models)
    if ALIAS not in models or chosen.upstream_model != Settings.upstream_model:
        models[ALIAS] = chosen.upstream_model
    return UpstreamConfig(
        name=name or urlsplit(url).hostname or "",
        openai_url=url,
        anthropic_url=url if known is None else _versioned(known.anthropic_url),
        anthropic_auth="x-api-key" if known is None else known.anthropic_auth,
        keys=tuple(key for part in chosen.upstream_key.split(",") if (key := part.strip())),
        models=models,
        ca_file=chosen.upstream_ca_file,
    )


def _from_file(path: Path, chosen: Settings) -> tuple[UpstreamConfig, ...]:
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{_FILE}: {path} cannot be read: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{_FILE}: {path} is no TOML: {error}.") from error
    reader = _Reader(path, text, is_production=chosen.is_production)
    configs = reader.read(table)
    if reader.problems:
        raise SettingsError("\n".join(reader.problems))
    return configs


class _Reader:
    """Reads a file and gathers what is wrong with it."""

    def __init__(self, path: Path, text: str, *, is_production: bool) -> None:
        self.problems: list[str] = []
        self._path = path
        self._lines = text.splitlines()
        self._is_production = is_production

    def read(self, table: dict[str, Any]) -> tuple[UpstreamConfig, ...]:
        for name in table:
            if name != "upstreams":
                self._complain(f"`{name}` is unknown; only [[upstreams]] is read", field=name)
        raw = table.get("upstreams")
        if not isinstance(raw, list) or not raw:
            self._complain("at least one [[upstreams]] is needed")
            return ()
        configs = [
            config
            for at, entry in enumerate(raw)
            if (config := self._read_entry(at, entry)) is not None
        ]
        names = [config.name for config in configs]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self._complain(f"two upstreams are called {name!r}")
        return tuple(configs)

    def _read_entry(self, at: int, raw: object) -> UpstreamConfig | None:
        try:
            entry = msgspec.convert(raw, _Entry)
        except msgspec.ValidationError as error:
            found = _PLACE.match(str(error))
            problem, place = found.group("problem", "field") if found else (str(error), "")
            unknown = _UNKNOWN.search(problem)
            field = unknown[1] if unknown else place.split(".")[0]
            self._complain(f"{place}: {problem}" if place else problem, at, field)
            return None
        known = _known().get(entry.kind)
        if entry.kind and known is None:
            kinds = ", ".join(sorted(_known()))
            self._complain(f"kind: {entry.kind!r} is unknown; there are {kinds}", at, "kind")
            return None
        config = self._config(entry, known or _Known(), given=raw if isinstance(raw, dict) else {})
        before = len(self.problems)
        self._check(at, entry, config)
        return config if len(self.problems) == before else None

    def _config(self, entry: _Entry, known: _Known, given: dict[str, Any]) -> UpstreamConfig:
        is_given = "anthropic_auth" in given
        openai_url, anthropic_url = entry.openai_url, entry.anthropic_url
        if not openai_url and not anthropic_url:
            openai_url, anthropic_url = known.openai_url, known.anthropic_url
        return UpstreamConfig(
            name=entry.name,
            openai_url=openai_url.rstrip("/"),
            anthropic_url=_versioned(anthropic_url),
            anthropic_auth=entry.anthropic_auth if is_given else known.anthropic_auth,
            keys=tuple(variable_named(name) for name in entry.keys_env),
            priority=entry.priority,
            models={**known.models, **entry.models},
            passes_other_models=entry.passes_other_models,
            ca_file=str(self._path.parent / entry.ca_file) if entry.ca_file else "",
            time_outs=TimeOuts(
                connect=entry.connect_seconds,
                first_byte=entry.first_byte_seconds,
                idle=entry.idle_seconds,
            ),
            limits=Limits(connections=entry.max_connections, wait_seconds=entry.wait_seconds),
        )

    def _check(self, at: int, entry: _Entry, config: UpstreamConfig) -> None:
        if not _NAME.fullmatch(config.name):
            self._complain("name: small letters, digits, dots and dashes, please", at, "name")
        if not config.openai_url and not config.anthropic_url:
            self._complain("openai_url, anthropic_url or a known kind is missing", at)
        self._check_url(at, "openai_url", config.openai_url)
        self._check_url(at, "anthropic_url", config.anthropic_url)
        for name, key in zip(entry.keys_env, config.keys, strict=True):
            if key:
                self._complain_all(_problems_of_keys((key,), name), at, "keys_env")
            else:
                self._complain(f"the environment has no {name}", at, "keys_env")
        self._complain_all(_problems_of_ca(config.ca_file, "ca_file"), at, "ca_file")
        for model in (*config.models, *config.models.values()):
            if len(model) > MAX_MODEL_CHARACTERS or not _KEY.fullmatch(model):
                self._complain(f"models: {model!r} is no model's name", at, "models")

    def _check_url(self, at: int, name: str, url: str) -> None:
        if not url:
            return
        problems = list(_problems_of_url(url, name))
        if not problems and self._is_production and urlsplit(url).hostname in LOOPBACK_NAMES:
            problems = [f"{name} points at this machine; production refuses simulators."]
        self._complain_all(problems, at, name)

    def _complain_all(self, problems: Iterable[str], at: int, field: str) -> None:
        for problem in problems:
            self._complain(problem.removesuffix("."), at, field)

    def _complain(self, problem: str, at: int | None = None, field: str = "") -> None:
        """Note a sentence that names the file, the line, and the entry."""
        entry = "" if at is None else f" upstreams[{at}]"
        line = self._line(at, field)
        place = f"{self._path}:{line}" if line else str(self._path)
        self.problems.append(f"{_FILE}: {place}:{entry} {problem}.")

    def _line(self, at: int | None, field: str) -> int:
        """Return where a field of an entry stands, else where the entry begins; 0 if neither."""
        headers = [number for number, line in enumerate(self._lines) if _HEADER.match(line)]
        if at is not None and at >= len(headers):
            return 0
        start = 0 if at is None else headers[at]
        end = len(self._lines) if at is None or at + 1 == len(headers) else headers[at + 1]
        wanted = re.compile(rf"\s*\[?(upstreams\.)?\"?{re.escape(field)}\b") if field else None
        for number in range(start, end) if wanted else ():
            if wanted and wanted.match(self._lines[number]):
                return number + 1
        return 0 if at is None else start + 1


def _problems_of_url(url: str, name: str) -> Iterator[str]:
    try:
        address = urlsplit(url)
        is_good = bool(address.hostname) and address.port != 0
    except ValueError:
        is_good = False
    if not is_good or not _KEY.fullmatch(url) or address.scheme not in {"http", "https"}:
        yield f"{name}: {url!r} is no http(s) address."
    elif address.query or address.fragment or address.username or address.password:
        yield f"{name} may have no user, question mark or hash."


def _problems_of_keys(keys: tuple[str, ...], name: str) -> Iterator[str]:
    if any(not _KEY.fullmatch(key) for key in keys):
        yield f"{name} holds a key with a blank or a character that no key has."


def _problems_of_ca(path: str, name: str) -> Iterator[str]:
    if path:
        try:
            pool.make_tls(path)
        except (OSError, ssl.SSLError) as error:
            yield f"{name}: {path} is no file of certificates: {error}."


def _versioned(url: str) -> str:
    """Return an Anthropic client's base with its version, as both ways of writing it are seen."""
    url = url.rstrip("/")
    return url if not url or url.endswith("/v1") else f"{url}/v1"
