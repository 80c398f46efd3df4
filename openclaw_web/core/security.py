"""Passwords, one-time codes and session tokens."""

import asyncio
import hashlib
import secrets

from passlib.context import CryptContext

SESSION_TOKEN_BYTES = 32
CODE_DIGITS = 8  # 26.6 bits; ASVS 6.5.2 asks for at least 20

# argon2 takes passwords of any length; plain bcrypt refuses more than 72 bytes.
_PASSWORDS = CryptContext(schemes=["argon2", "bcrypt_sha256"])
# The documented column holds a bcrypt hash. The secret is random, so the lowest cost protects it
# as well.
_TOKEN_HASHES = CryptContext(schemes=["bcrypt"], bcrypt__rounds=4)


async def hash_password(password: str) -> str:
    return await asyncio.to_thread(_PASSWORDS.hash, password)


async def password_matches(password: str, known_hash: str | None) -> bool:
    """Compare off the event loop; a missing hash costs the same time as a wrong password."""
    if known_hash is None:
        await asyncio.to_thread(_PASSWORDS.dummy_verify)
        return False
    return await asyncio.to_thread(_PASSWORDS.verify, password, known_hash)


def bcrypt_hash(random_secret: str) -> str:
    """Hash a random secret of at most 72 bytes, about one millisecond."""
    return _TOKEN_HASHES.hash(random_secret)


def new_token() -> str:
    """Return 256 random bits for a cookie or a link."""
    return secrets.token_urlsafe(SESSION_TOKEN_BYTES)


def new_code() -> str:
    """Return a one-time code that a person can type."""
    return "".join(secrets.choice("0123456789") for _ in range(CODE_DIGITS))


def token_hash(token: str) -> str:
    """Return the SHA-256 of a random token, in hex: what the database may know of it."""
    return hashlib.sha256(token.encode()).hexdigest()
