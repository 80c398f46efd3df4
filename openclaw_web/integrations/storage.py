"""Where backups lie: a folder, or an object store, by the address in BACKUP_URL (fsspec).

An object appears under its name only when it is complete. fsspec has a driver for each kind of
store (`s3fs`, `gcsfs`, `adlfs`); on a laptop it is a folder and needs none.
"""

import asyncio
import contextlib
import os
import posixpath
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

import fsspec
from fsspec.core import url_to_fs

from openclaw_web.core.errors import SettingsError, VendorError

READ_BYTES = 1024 * 1024
PART = ".part"
Result = TypeVar("Result")


class MissingError(VendorError):
    """The store has no such object."""

    def __init__(self, name: str) -> None:
        super().__init__(f"The backup store has no {name}.", can_retry=False, code="no_object")


class Store:
    """One place for backups."""

    def __init__(self, url: str) -> None:
        try:
            self._files, self._root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise SettingsError(f"BACKUP_URL cannot be opened: {error}") from error
        self._is_local = "file" in _protocols(self._files)

    async def create(self, name: str) -> "Writing":
        """Begin an object.

        Raises:
            VendorError: the store does not take it.
        """
        path = self._path(name)

        def begin() -> Any:
            if self._is_local:  # an object store has no folders
                self._files.makedirs(posixpath.dirname(path), exist_ok=True)
            return self._files.open(path + PART, "wb")

        return Writing(self._files, path, await _asked(begin), is_local=self._is_local)

    async def read(self, name: str) -> AsyncGenerator[bytes]:
        """Yield an object in pieces.

        Raises:
            MissingError: there is none.
            VendorError: the store does not answer.
        """
        path = self._path(name)
        opened = await _asked(lambda: self._files.open(path, "rb"), name=name)
        try:
            while piece := await _asked(lambda: opened.read(READ_BYTES)):
                yield piece
        finally:
            await _asked(opened.close)

    async def remove(self, name: str) -> None:
        """Delete an object, and what was begun of it; one that is gone already is fine."""
        path = self._path(name)

        def remove() -> None:
            for one in (path, path + PART):
                with contextlib.suppress(FileNotFoundError):
                    self._files.rm_file(one)

        await _asked(remove)

    async def exists(self, name: str) -> bool:
        path = self._path(name)
        return await _asked(lambda: bool(self._files.exists(path)))

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name)


class Writing:
    """An object that is being written; nobody sees it before `finish`."""

    def __init__(
        self, files: fsspec.AbstractFileSystem, path: str, opened: Any, *, is_local: bool
    ) -> None:
        self._is_local = is_local
        self._files = files
        self._path = path
        self._opened = opened

    async def write(self, piece: bytes) -> None:
        await _asked(lambda: self._opened.write(piece))

    async def finish(self) -> None:
        """Close the object and give it its name; from then on it survives a power cut."""

        def finish() -> None:
            self._opened.close()
            if self._is_local:
                _settle(self._path + PART)
            self._files.mv(self._path + PART, self._path)
            if self._is_local:
                _settle(posixpath.dirname(self._path))
                _settle(posixpath.dirname(posixpath.dirname(self._path)))

        await _asked(finish)

    async def abort(self) -> None:
        """Forget what was written; the store's own trouble is of no interest any more."""

        def abort() -> None:
            with contextlib.suppress(Exception):
                self._opened.close()
            with contextlib.suppress(Exception):
                self._files.rm_file(self._path + PART)

        await asyncio.to_thread(abort)


def _settle(path: str) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _protocols(files: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    found = files.protocol
    return (found,) if isinstance(found, str) else tuple(found)


async def _asked(act: Callable[[], Result], *, name: str = "") -> Result:
    """Do something with the store in a thread of its own, and turn its errors into ours."""
    try:
        return await asyncio.to_thread(act)
    except FileNotFoundError as error:
        raise MissingError(name) from error
    except Exception as error:  # each driver raises classes of its own
        raise VendorError(
            f"The backup store does not work: {type(error).__name__}: {error}",
            can_retry=True,
            code="backup_store",
        ) from error
