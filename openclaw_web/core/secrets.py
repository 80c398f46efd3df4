"""Encrypting what must be readable again, and deriving keys from the one server key.

What is derived to find and to sign (fingerprints, tokens) hangs on SECRET_KEY alone. What is
encrypted at rest may have keys of its own, named in ENCRYPTION_KEYS: the first one encrypts, all
of them decrypt, and `admin rotate-keys` brings every row under the first.
"""

import base64
import hmac
import os
from functools import cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from openclaw_web.core.errors import SettingsError
from openclaw_web.core.settings import settings

NONCE_BYTES = 12
KEY_BYTES = 32
KEY_ID = "k1"  # the server key itself


@cache
def derive_key(purpose: str) -> bytes:
    """Return 32 bytes that only this purpose uses, derived from the server key.

    Kept, because the token proxy asks for each request; the server key is read once at start.

    Raises:
        SettingsError: SECRET_KEY is no 32 bytes in base64.
    """
    return _derived(_server_key(), purpose)


def fingerprint(purpose: str, value: str) -> bytes:
    """Return the HMAC-SHA256 of a value: equal values are found, the value cannot be read back."""
    return hmac.digest(derive_key(purpose), value.encode(), "sha256")


def key_id() -> str:
    """Return the name of the key that encrypts now: it is noted on every row."""
    return next(iter(_keys()))


def key_ids() -> list[str]:
    """Return the names of the keys that decrypt."""
    return list(_keys())


def encrypt(purpose: str, clear: str) -> bytes:
    """Return nonce and AES-256-GCM ciphertext; `purpose` is authenticated too."""
    return encrypt_bytes(purpose, clear.encode())


def encrypt_bytes(purpose: str, clear: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    key = _derived(_keys()[key_id()], purpose)
    return nonce + AESGCM(key).encrypt(nonce, clear, purpose.encode())


def decrypt(purpose: str, sealed: bytes) -> str:
    """Return the clear text.

    Raises:
        cryptography.exceptions.InvalidTag: another key or purpose sealed it, or it was changed.
    """
    return decrypt_bytes(purpose, sealed).decode()


def decrypt_bytes(purpose: str, sealed: bytes) -> bytes:
    """Return the clear bytes, whichever of our keys sealed them.

    Raises:
        cryptography.exceptions.InvalidTag: another key or purpose sealed it, or it was changed.
    """
    nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    for key in _keys().values():
        try:
            return AESGCM(_derived(key, purpose)).decrypt(nonce, ciphertext, purpose.encode())
        except InvalidTag:
            continue
    raise InvalidTag


def _keys() -> dict[str, bytes]:
    """Return the keys that encrypt at rest by their names, the newest first; k1 is always there."""
    named = [one.strip() for one in settings().encryption_keys.split(",") if one.strip()]
    found: dict[str, bytes] = {}
    for one in named:
        name, _, text = one.partition(":")
        if not name or name in found or name == KEY_ID:
            raise SettingsError(
                "ENCRYPTION_KEYS must look like k3:BASE64,k2:BASE64, the newest first, each name"
                f" once; {KEY_ID} is SECRET_KEY and is not listed."
            )
        found[name] = _decoded(text, f"the key {name} of ENCRYPTION_KEYS")
    return {**found, KEY_ID: _server_key()}


def _derived(key: bytes, purpose: str) -> bytes:
    return hmac.digest(key, purpose.encode(), "sha256")


def _server_key() -> bytes:
    return _decoded(settings().secret_key, "SECRET_KEY")


def _decoded(text: str, name: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise SettingsError(
            f"{name} is not base64; make one with: openssl rand -base64 32"
        ) from error
    if len(key) != KEY_BYTES:
        raise SettingsError(
            f"{name} must be 32 bytes in base64; make one with: openssl rand -base64 32"
        )
    return key
