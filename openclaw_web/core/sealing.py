"""Encrypting a stream of any length: AES-256-GCM in chunks that cannot be cut, swapped or dropped.

The construction is STREAM (Hoang, Reyhanitabar, Rogaway, Vizár: "Online Authenticated-Encryption
and its Nonce-Reuse Misuse-Resistance", 2015): a chunk's nonce is its number and a mark for the
last one, so that a stream that ends early or out of order does not decrypt. A key seals one stream
only, which is why the nonce needs no random part. `context` says what the stream is; it is
authenticated with every chunk and stored nowhere in it.
"""

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from openclaw_web.core.errors import OpenClawError

MAGIC = b"OCSEAL1\n"
CHUNK_BYTES = 256 * 1024
TAG_BYTES = 16
SEALED_BYTES = CHUNK_BYTES + TAG_BYTES
_LAST, _MORE = 1, 0


class DamagedError(OpenClawError):
    """A sealed stream was cut, changed, put into another order, or is not the one it should be."""

    def __init__(self) -> None:
        super().__init__("This backup is damaged: it does not decrypt.")


def new_key() -> bytes:
    """Return a key for one stream."""
    return AESGCM.generate_key(bit_length=256)


class Sealer:
    """Encrypts one stream, piece by piece."""

    def __init__(self, key: bytes, context: bytes) -> None:
        self._cipher = AESGCM(key)
        self._context = context
        self._waiting = bytearray()
        self._number = 0
        self._head = MAGIC

    def update(self, clear: bytes) -> bytes:
        """Take a piece of any length; return what can be written already."""
        self._waiting += clear
        ready = bytearray(self._take_head())
        while len(self._waiting) > CHUNK_BYTES:  # the last chunk is known only when nothing follows
            ready += self._seal(bytes(self._waiting[:CHUNK_BYTES]), _MORE)
            del self._waiting[:CHUNK_BYTES]
        return bytes(ready)

    def finish(self) -> bytes:
        """Return the rest, which says that it is the end."""
        return self._take_head() + self._seal(bytes(self._waiting), _LAST)

    def _take_head(self) -> bytes:
        head, self._head = self._head, b""
        return head

    def _seal(self, clear: bytes, mark: int) -> bytes:
        sealed = self._cipher.encrypt(_nonce(self._number, mark), clear, MAGIC + self._context)
        self._number += 1
        return sealed


class Opener:
    """Decrypts one stream, piece by piece; nothing is returned that was not authenticated."""

    def __init__(self, key: bytes, context: bytes) -> None:
        self._cipher = AESGCM(key)
        self._context = context
        self._waiting = bytearray()
        self._number = 0
        self._has_head = False

    def update(self, sealed: bytes) -> bytes:
        """Take a piece of any length; return what is clear already.

        Raises:
            DamagedError: it is not what was sealed.
        """
        self._waiting += sealed
        if not self._has_head and len(self._waiting) >= len(MAGIC):
            self._take_head()
        ready = bytearray()
        while self._has_head and len(self._waiting) > SEALED_BYTES:
            ready += self._open(bytes(self._waiting[:SEALED_BYTES]), _MORE)
            del self._waiting[:SEALED_BYTES]
        return bytes(ready)

    def finish(self) -> bytes:
        """Return the rest.

        Raises:
            DamagedError: the stream ended before its end.
        """
        if not self._has_head:
            raise DamagedError
        return self._open(bytes(self._waiting), _LAST)

    def _take_head(self) -> None:
        if self._waiting[: len(MAGIC)] != MAGIC:
            raise DamagedError
        del self._waiting[: len(MAGIC)]
        self._has_head = True

    def _open(self, sealed: bytes, mark: int) -> bytes:
        try:
            clear = self._cipher.decrypt(_nonce(self._number, mark), sealed, MAGIC + self._context)
        except (InvalidTag, ValueError) as error:
            raise DamagedError from error
        self._number += 1
        return clear


def _nonce(number: int, mark: int) -> bytes:
    return struct.pack(">3xQB", number, mark)
