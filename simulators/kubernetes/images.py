"""The allow-list of images: the only programs that a pod may run, whatever its spec says."""

from dataclasses import dataclass
from pathlib import Path

import orjson


@dataclass(frozen=True)
class Image:
    """A fixed argument vector and the environment that comes with the image."""

    command: tuple[str, ...]
    env: dict[str, str]


class Images:
    """Reads the list again when its file has changed: an image can be added while running."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at = 0
        self._known: dict[str, Image] = {}
        self._refresh()

    def find(self, name: str) -> Image | None:
        self._refresh()
        return self._known.get(name) or self._known.get(f"{name}:latest")

    def names(self) -> list[str]:
        self._refresh()
        return sorted(self._known)

    def _refresh(self) -> None:
        changed_at = self._path.stat().st_mtime_ns
        if changed_at != self._read_at:
            self._known = {
                name: _image(name, entry)
                for name, entry in orjson.loads(self._path.read_bytes()).items()
            }
            self._read_at = changed_at


def _image(name: str, entry: dict[str, object]) -> Image:
    command, env = entry.get("command"), entry.get("env") or {}
    is_vector = (
        isinstance(command, list) and command and all(isinstance(one, str) for one in command)
    )
    if not is_vector or not isinstance(command, list) or not isinstance(env, dict):
        raise SystemExit(f"image {name!r}: 'command' must be a list of strings, 'env' an object")
    return Image(tuple(command), {str(key): str(value) for key, value in env.items()})
