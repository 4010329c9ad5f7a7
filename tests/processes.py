"""Waits for what another process does, instead of for a fixed time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec

P = ParamSpec("P")

# A process that has not done it after this many seconds never will.
LIMIT = 60.0


def wait_until(happened: Callable[P, bool], *words: P.args, **options: P.kwargs) -> None:
    """Raises TimeoutError if it does not happen."""
    end = time.monotonic() + LIMIT
    while not happened(*words, **options):
        if time.monotonic() > end:
            raise TimeoutError(f"did not happen within {LIMIT:.0f} s")
        time.sleep(0.005)


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal; true also for one that has ended and was not yet waited for."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return status["State"].startswith("Z") or bool(int(status["SigCgt"], 16) >> (number - 1) & 1)


def has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file or folder open; false for one that has ended."""
    with suppress(OSError):  # descriptors come and go
        return any(os.path.samefile(link, path) for link in Path(f"/proc/{pid}/fd").iterdir() if link.exists())
    return False
