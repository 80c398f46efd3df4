"""What a running OpenClaw takes anew, and what needs a new pod: one list of facts.

Whatever is not named here restarts: a new key in `openclaw.json` is safe before it is fast.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from openclaw_web.boxes.openclaw_config import GENERATION_HEADER, PROVIDER

CONFIG_FILE, USER_FILE = "openclaw.json", "USER.md"
# Seen with OpenClaw 2026.9.6: taken about 1.5 s after the mounted file changed, without a restart.
# The owner (commands.ownerAllowFrom) is not among them, nor is anything of the gateway.
HOT = (
    ("agents", "defaults", "model", "primary"),
    ("agents", "defaults", "thinkingDefault"),
    ("channels", "telegram", "allowFrom"),
    ("models", "providers", PROVIDER, "headers", GENERATION_HEADER),
    ("models", "providers", PROVIDER, "models"),
)
# Measured from the end of the old pod: 22 to 30 s until it is ready and 10 to 12 s to its first
# answer, more on busy processors.
RESTART_SECONDS = 120
RESTART_TAKES = f"up to {RESTART_SECONDS // 60} minutes"
PEOPLE = "telegram_user_ids"
# The key in a revision's settings: with which generation somebody was last taken off the list.
REMOVED_AT = "removed_at"
IMAGE = "image"


def cold_config(text: str) -> Any:
    """Return the part of `openclaw.json` that a pod reads at its start only."""
    return _without(json.loads(text), HOT)


def live_hash(config: str, user_text: str) -> str:
    """Return what changes exactly when a mounted file does."""
    return hashlib.sha256(json.dumps([config, user_text]).encode()).hexdigest()[:32]


def removed_at(before: Mapping[str, Any] | None, chosen: Mapping[str, Any], generation: int) -> int:
    """Return with which generation somebody was last taken off the list of allowed people.

    Such a change restarts although OpenClaw reads the list anew: it keeps an old file silently when
    a new one displeases it, and somebody who was shut out must not stay in.
    """
    if before is None:
        return 0
    if set(before.get(PEOPLE, ())) - set(chosen.get(PEOPLE, ())):
        return generation
    return int(before.get(REMOVED_AT, 0))


def _without(document: Any, paths: tuple[tuple[str, ...], ...]) -> Any:
    """Return a copy of a document that lacks these paths."""
    if not isinstance(document, dict):
        return document
    ends = {path[0] for path in paths if len(path) == 1}
    return {
        key: _without(one, tuple(path[1:] for path in paths if path[0] == key and len(path) > 1))
        for key, one in document.items()
        if key not in ends
    }
