"""What the terminal shows: short lines while starting, and problems."""

import contextlib
import sys
from collections.abc import Sequence
from typing import TextIO

BOLD, DIM, GREEN, RED, YELLOW, CYAN = "1", "2", "32", "31", "33", "36"
TITLE_WIDTH = 18


class Screen:
    """Writes to the terminal: colours where there is one; a closed one is no error."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._has_colours = self._out.isatty()

    def line(self, text: str = "") -> None:
        with contextlib.suppress(OSError, ValueError):
            self._out.write(f"{text}\n")
            self._out.flush()

    def ready(self, title: str, note: str) -> None:
        self.line(f"  {self.paint('✓', GREEN)} {title:<{TITLE_WIDTH}} {self.paint(note, DIM)}")

    def problem(self, sentence: str, details: Sequence[str] = ()) -> None:
        self.line(f"  {self.paint('✗', RED)} {sentence}")
        for detail in details:
            self.line(f"      {self.paint(detail, DIM)}")

    def warning(self, sentence: str) -> None:
        self.line(f"  {self.paint('!', YELLOW)} {sentence}")

    def paint(self, text: str, *codes: str) -> str:
        return f"\033[{';'.join(codes)}m{text}\033[0m" if self._has_colours else text
