"""The headers that every answer to a browser carries."""

import base64
import hashlib
import re
from pathlib import Path

from reflex.utils.prerequisites import get_web_dir
from starlette.types import ASGIApp, Message, Receive, Scope, Send

INLINE_SCRIPT = re.compile(r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL)
HASHED_ASSETS = "/assets/"
ONE_YEAR = b"public, max-age=31536000, immutable"


def content_security_policy(pages: Path) -> str:
    """Return the policy for the built pages: their own inline scripts by hash, and nothing foreign.

    'unsafe-eval' stays because Reflex runs rx.toast, rx.call_script and rx.set_focus through
    eval().
    """
    hashes = {
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for page in sorted(pages.rglob("*.html"))
        for script in INLINE_SCRIPT.findall(page.read_text(encoding="utf-8"))
    }
    return "; ".join(
        (
            "default-src 'self'",
            f"script-src 'self' 'unsafe-eval' {' '.join(sorted(hashes))}".strip(),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'self'",
            "object-src 'none'",
            "frame-ancestors 'none'",
        )
    )


def with_security_headers(app: ASGIApp) -> ASGIApp:
    """Add the policy and its companions to every answer that does not bring its own."""
    own = (
        (
            b"content-security-policy",
            content_security_policy(get_web_dir() / "build" / "client").encode(),
        ),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"same-origin"),
        (b"x-frame-options", b"DENY"),
        (b"cross-origin-opener-policy", b"same-origin"),
    )

    async def add_headers(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _merged(message["headers"], own, scope["path"])
            await send(message)

        await app(scope, receive, send_with_headers if scope["type"] == "http" else send)

    return add_headers


def _merged(
    given: list[tuple[bytes, bytes]], own: tuple[tuple[bytes, bytes], ...], path: str
) -> list[tuple[bytes, bytes]]:
    names = {name.lower() for name, _ in given}
    merged = [*given, *(pair for pair in own if pair[0] not in names)]
    if path.startswith(HASHED_ASSETS) and b"cache-control" not in names:
        merged.append((b"cache-control", ONE_YEAR))
    return merged
