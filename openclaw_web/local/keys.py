"""Secrets that the embedded stack makes for itself, each once, in its owner's files."""

import base64
import json
import secrets
from collections.abc import Callable
from pathlib import Path

from openclaw_web.local.places import write_secret

SERVER_KEY_BYTES = 32
PASSWORD_BYTES = 18


def keep(path: Path, make: Callable[[], str]) -> str:
    """Return the secret in this file; make it the first time."""
    try:
        kept = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        kept = ""
    if not kept:
        kept = make()
        write_secret(path, kept)
    return kept


def server_key() -> str:
    """Return 32 random bytes in base64: the form of SECRET_KEY."""
    return base64.b64encode(secrets.token_bytes(SERVER_KEY_BYTES)).decode()


def password() -> str:
    """Return a password that needs no quoting in an address, a file or a shell."""
    return secrets.token_hex(PASSWORD_BYTES)


def stripe_key() -> str:
    return f"sk_test_{secrets.token_hex(24)}"


def kimi_key() -> str:
    return f"sk-kimi-{secrets.token_hex(24)}"


def read_ports(path: Path) -> dict[str, int]:
    """Return the ports of the last run, or none."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): int(port) for name, port in kept.items()}
