"""A sealed stream opens only whole, in order, unchanged, and as what it is."""

import pytest

from openclaw_web.core import sealing
from openclaw_web.core.sealing import CHUNK_BYTES, MAGIC, SEALED_BYTES, DamagedError, Opener, Sealer

KEY = bytes(range(32))
THREE = bytes(range(256)) * (CHUNK_BYTES // 256) * 2 + b"the end"


def seal(clear, *, key=KEY, context=b"one", step=100_000):
    sealer = Sealer(key, context)
    pieces = [sealer.update(clear[at : at + step]) for at in range(0, len(clear), step)]
    return b"".join(pieces) + sealer.finish()


def unseal(sealed, *, key=KEY, context=b"one", step=70_001):
    opener = Opener(key, context)
    pieces = [opener.update(sealed[at : at + step]) for at in range(0, len(sealed), step)]
    return b"".join(pieces) + opener.finish()


def chunks(sealed):
    body = sealed[len(MAGIC) :]
    return [body[at : at + SEALED_BYTES] for at in range(0, len(body), SEALED_BYTES)]


@pytest.mark.parametrize(
    "length", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, len(THREE)]
)
def test_what_is_sealed_opens_again(length):
    clear = THREE[:length]
    sealed = seal(clear)
    assert unseal(sealed) == clear
    assert unseal(sealed, step=1_000_000) == clear
    assert clear[:64] == b"" or clear[:64] not in sealed or length < 64


@pytest.mark.parametrize(
    "change",
    [
        lambda sealed: sealed[:-1],
        lambda sealed: MAGIC + b"".join(chunks(sealed)[:-1]),
        lambda sealed: sealed[: len(MAGIC)],
        lambda _sealed: b"",
        lambda sealed: sealed + b"x",
        lambda sealed: MAGIC + b"".join([chunks(sealed)[1], chunks(sealed)[0], chunks(sealed)[2]]),
        lambda sealed: MAGIC + b"".join([chunks(sealed)[0], chunks(sealed)[2]]),
        lambda sealed: MAGIC + b"".join([chunks(sealed)[0], *chunks(sealed)]),
        lambda sealed: sealed[:1000] + bytes([sealed[1000] ^ 1]) + sealed[1001:],
        lambda sealed: b"OCSEAL2\n" + sealed[len(MAGIC) :],
    ],
    ids=[
        *("cut", "cut at a chunk", "head only", "empty", "longer", "swapped", "dropped"),
        *("doubled", "one bit", "another format"),
    ],
)
def test_what_was_changed_does_not_open(change):
    with pytest.raises(DamagedError):
        unseal(change(seal(THREE)))


def test_another_key_or_another_backup_does_not_open():
    sealed = seal(THREE)
    with pytest.raises(DamagedError):
        unseal(sealed, key=sealing.new_key())
    with pytest.raises(DamagedError):
        unseal(sealed, context=b"two")


def test_nothing_comes_out_that_was_not_authenticated():
    sealed = bytearray(seal(THREE))
    sealed[len(MAGIC) + SEALED_BYTES + 5] ^= 1
    opener = Opener(KEY, b"one")
    assert opener.update(bytes(sealed[: len(MAGIC) + SEALED_BYTES + 1])) == THREE[:CHUNK_BYTES]
    with pytest.raises(DamagedError):
        opener.update(bytes(sealed[len(MAGIC) + SEALED_BYTES + 1 :]))
