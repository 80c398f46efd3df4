"""What was said, kept in the state folder, so that a restart forgets nothing."""

import json
import re
import time
from pathlib import Path

TURNS_REMEMBERED = 20
USER_FILE_LIMIT = 4000  # characters, as OpenClaw caps USER.md


class Memory:
    """One JSONL file a session; it is read anew for each turn, so nothing can be out of date."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "agents" / "main" / "sessions"
        self._folder.mkdir(parents=True, exist_ok=True)

    def recent(self, session: str) -> list[dict[str, str]]:
        """Return the latest turns as messages for the model, oldest first."""
        path = self._path(session)
        if not path.exists():
            return []
        lines = path.read_text(encoding="utf-8").splitlines()[-2 * TURNS_REMEMBERED :]
        entries = [entry for entry in map(_entry, lines) if entry]
        return [{"role": one["role"], "content": one["content"]} for one in entries]

    def add_turn(self, session: str, question: str, answer: str) -> None:
        now = int(time.time())
        entries = (
            {"role": "user", "content": question, "at": now},
            {"role": "assistant", "content": answer, "at": now},
        )
        lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
        with self._path(session).open("a", encoding="utf-8") as file:
            file.write(lines)

    def forget(self, session: str) -> None:
        self._path(session).unlink(missing_ok=True)

    def _path(self, session: str) -> Path:
        return self._folder / (re.sub(r"[^\w.-]", "_", session) + ".jsonl")


def user_notes(workspace: Path, mounted: Path | None) -> str:
    """Return USER.md: who the person is and which language they want."""
    for path in (workspace / "USER.md", mounted):
        if path is not None and path.is_file():
            return path.read_text(encoding="utf-8", errors="replace")[:USER_FILE_LIMIT].strip()
    return ""


def _entry(line: str) -> dict[str, str] | None:
    """A line that was cut by a crash is passed over."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    is_whole = isinstance(entry, dict) and {"role", "content"} <= entry.keys()
    return entry if is_whole else None
