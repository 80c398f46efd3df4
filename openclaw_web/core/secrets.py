"""Encrypting what must be readable again, and deriving keys from the one server key."""

import base64
import hmac
import os
from functools import cache

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from openclaw_web.core.errors import SettingsError
from openclaw_web.core.settings import settings

NONCE_BYTES = 12
KEY_BYTES = 32
KEY_ID = "k1"


@cache
def derive_key(purpose: str) -> bytes:
    """Return 32 bytes that only this purpose uses, derived from the server key.

    Kept, because the token proxy asks for each request; the server key is read once at start.

    Raises:
        SettingsError: SECRET_KEY is no 32 bytes in base64.
    """
    return hmac.digest(_server_key(), purpose.encode(), "sha256")


def fingerprint(purpose: str, value: str) -> bytes:
    """Return the HMAC-SHA256 of a value: equal values are found, the value cannot be read back."""
    return hmac.digest(derive_key(purpose), value.encode(), "sha256")


def encrypt(purpose: str, clear: str) -> bytes:
    """Return nonce and AES-256-GCM ciphertext; `purpose` is authenticated too."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(derive_key(purpose)).encrypt(nonce, clear.encode(), purpose.encode())


def decrypt(purpose: str, sealed: bytes) -> str:
    """Return the clear text.

    Raises:
        cryptography.exceptions.InvalidTag: another key or purpose sealed it, or it was changed.
    """
    nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    return AESGCM(derive_key(purpose)).decrypt(nonce, ciphertext, purpose.encode()).decode()


def _server_key() -> bytes:
    try:
        key = base64.b64decode(settings().secret_key, validate=True)
    except ValueError as error:
        raise SettingsError(
            "SECRET_KEY is not base64; make one with: openssl rand -base64 32"
        ) from error
    if len(key) != KEY_BYTES:
        raise SettingsError(
            "SECRET_KEY must be 32 bytes in base64; make one with: openssl rand -base64 32"
        )
    return key
