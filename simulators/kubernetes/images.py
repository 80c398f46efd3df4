"""The allow-list of images: the only programs that a pod may run, whatever its spec says.

An entry has a `command` (a fixed argument vector) and may have: `env`; `also`, further vectors that
an init container may ask for, word by word; `as_pod_user`, true when the program does not give up
root by itself; and `sandbox`, `{"readable": [folders]}`, to let it see nothing else of the machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson


@dataclass(frozen=True)
class Image:
    """The fixed argument vectors, and the environment that comes with the image."""

    command: tuple[str, ...]
    env: dict[str, str]
    also: tuple[tuple[str, ...], ...] = ()
    as_pod_user: bool = False
    readable: tuple[Path, ...] | None = None  # None: it runs without a sandbox

    def asked_by_init(self, spec: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the vector for an init container.

        Raises:
            OSError: it asks for one that is not on the list.
        """
        asked = (*(spec.get("command") or ()), *(spec.get("args") or ()))
        if not asked:
            return self.command
        if asked in self.also:
            return asked
        raise OSError(f"the command {list(asked)} is not on the list of this development cluster")


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


def _image(name: str, entry: dict[str, Any]) -> Image:
    command, env, also = entry.get("command"), entry.get("env") or {}, entry.get("also") or []
    are_vectors = isinstance(also, list) and all(map(_is_vector, [command, *also]))
    if not are_vectors or not isinstance(env, dict):
        raise SystemExit(
            f"image {name!r}: 'command' must be a list of strings, 'also' a list of such lists,"
            " 'env' an object"
        )
    sandbox = entry.get("sandbox")
    return Image(
        command=tuple(entry["command"]),
        env={str(key): str(value) for key, value in env.items()},
        also=tuple(tuple(one) for one in also),
        as_pod_user=bool(entry.get("as_pod_user")),
        readable=None if sandbox is None else tuple(map(Path, sandbox["readable"])),
    )


def _is_vector(words: object) -> bool:
    return isinstance(words, list) and bool(words) and all(isinstance(one, str) for one in words)
