"""The configuration in use, taken anew when the file changes, as a mounted Secret does."""

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from simulators.agent.config import Config, ConfigError, load

LOOK_EVERY_SECONDS = 1.0
log = logging.getLogger("agent.config")


class LiveConfig:
    """`current` is always a valid configuration; a broken file leaves the old one in use."""

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self._path = path
        self._environment = environment
        self._seen = self._signature()
        self.current: Config = load(path, environment)

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            self.look()

    def look(self) -> None:
        """Load the file if it is another one than last time.

        Kubernetes flips a `..data` link, so the resolved path counts beside time and size.
        """
        signature = self._signature()
        if signature == self._seen:
            return
        self._seen = signature
        try:
            self.current = load(self._path, self._environment)
        except ConfigError as error:
            log.warning("config reload skipped, the old one stays: %s", error)
        else:
            log.info("config reloaded")

    def _signature(self) -> tuple[str, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return os.path.realpath(self._path), found.st_mtime_ns, found.st_size
