"""The backup store on a folder and on an object store, which has neither folders nor renaming."""

from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from openclaw_web.core.errors import VendorError
from openclaw_web.integrations.storage import MissingError, Store

NAME = "customer-1/backup-1.sealed"
PIECES = [b"what it knows " * 100_000, b"of its owner"]


class Undeletable(MemoryFileSystem):
    """An object store that lets us read and write, and no more."""

    protocol = "undeletable"

    def rm(self, path, recursive=False, maxdepth=None):  # noqa: ARG002 - fsspec's own
        raise PermissionError("AccessDenied")

    rm_file = rm


@pytest.fixture(params=["file", "memory"])
def place(request, tmp_path):
    """Return the address of an empty store, and what lists the objects in it."""
    url = f"{request.param}://{tmp_path}/{uuid4().hex}"
    files, root = fsspec.url_to_fs(url)
    return url, lambda: [one.removeprefix(root + "/") for one in files.find(root)]


async def write(store):
    writing = await store.create(NAME)
    for piece in PIECES:
        await writing.write(piece)
    return writing


async def read(store, name=NAME):
    return b"".join([piece async for piece in store.read(name)])


async def test_what_is_stored_is_read_listed_and_deleted(place):
    url, listed = place
    store = Store(url)
    writing = await write(store)
    assert not await store.exists(NAME)
    await writing.finish()
    assert await store.exists(NAME)
    assert listed() == [NAME]
    assert await read(Store(url)) == b"".join(PIECES)
    await store.remove(NAME)
    await store.remove(NAME)
    assert listed() == []
    with pytest.raises(MissingError):
        await read(store)


async def test_what_is_given_up_leaves_nothing(place):
    url, listed = place
    store = Store(url)
    await (await write(store)).abort()
    assert listed() == []
    await write(store)  # and its writer died
    await store.remove(NAME)
    assert listed() == []


async def test_without_the_right_to_delete_nothing_counts_as_stored():
    fsspec.register_implementation("undeletable", Undeletable, clobber=True)
    store = Store(f"undeletable://{uuid4().hex}")
    writing = await write(store)
    with pytest.raises(VendorError, match="AccessDenied"):
        await writing.finish()
    with pytest.raises(VendorError, match="AccessDenied"):
        await store.remove(NAME)
