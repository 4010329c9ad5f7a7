"""A progress bar for people who wait: on a terminal, for more than one thing, and after a second."""

import sys
import time

_PATIENCE = 1.0  # seconds without a bar
_PAUSE = 0.1  # between two drawings
_WIDTH = 30


class Progress:
    """Drawn on stderr; call `clear` before anything else is printed to the same terminal."""

    def __init__(self, total: int, what: str) -> None:
        self._total = total
        self._what = what
        self._next = time.monotonic() + _PATIENCE if total > 1 and sys.stderr.isatty() else float("inf")
        self._drawn = 0

    def show(self, done: int) -> None:
        """Show how many are done, but not too often."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _PAUSE
        full = _WIDTH * done // self._total
        line = f"[{'=' * full}{' ' * (_WIDTH - full)}] {done}/{self._total} {self._what}"
        # Blanks over the old bar, no escape codes: this works on any terminal.
        sys.stderr.write("\r" + line.ljust(self._drawn))
        sys.stderr.flush()
        self._drawn = len(line)

    def clear(self) -> None:
        """Remove the bar; the next `show` draws it again at once."""
        if self._drawn:
            sys.stderr.write("\r" + " " * self._drawn + "\r")
            sys.stderr.flush()
            self._drawn = 0
            self._next = 0.0
