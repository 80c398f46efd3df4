"""One server-sent event, as both wire forms make them and `streaming` sends them."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Event:
    """Content events are those that faults count."""

    data: dict[str, Any] | str
    name: str | None = None
    is_content: bool = False

    def encode(self) -> bytes:
        named = f"event: {self.name}\n" if self.name else ""
        data = self.data if isinstance(self.data, str) else json.dumps(self.data)
        return f"{named}data: {data}\n\n".encode()
