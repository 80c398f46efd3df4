"""The simulators beside this product, as DEV_SERVICES names them; production has none."""

import json
from dataclasses import dataclass
from pathlib import Path

from openclaw_web.core.errors import SettingsError
from openclaw_web.core.settings import Settings

TOKEN_FILE = "token_file"  # noqa: S105 - a key of the setting


@dataclass(frozen=True)
class DevServices:
    """The address of each simulator by the name of its pages, and where their common token lies."""

    addresses: dict[str, str]
    token_file: Path | None

    @property
    def token(self) -> str:
        return self.token_file.read_text(encoding="utf-8").strip() if self.token_file else ""


def dev_services(chosen: Settings) -> DevServices:
    """Return the simulators of these settings; none when the setting is empty.

    Raises:
        SettingsError: the setting is no JSON object.
    """
    if not chosen.dev_services:
        return DevServices({}, None)
    try:
        found = dict(json.loads(chosen.dev_services))
    except (ValueError, TypeError) as error:
        raise SettingsError("DEV_SERVICES must be a JSON object of addresses.") from error
    token_file = found.pop(TOKEN_FILE, None)
    return DevServices(
        {str(name): str(url).rstrip("/") for name, url in found.items()},
        Path(token_file) if token_file else None,
    )
