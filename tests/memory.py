"""How much memory something takes."""

from __future__ import annotations

import re
import resource
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def allocated() -> Iterator[Callable[[], int]]:
    """Gives a function: the most bytes that Python's objects took at one time in the block, which is slower for it."""
    tracemalloc.start()
    most = 0
    try:
        yield lambda: most
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()  # or all that follows would be slow, too


def peak_kib() -> int:
    """The most KiB that this process had in memory since its program began. (ru_maxrss knows its parent's as well.)"""
    (peak,) = re.findall(r"^VmHWM:\t *(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(peak)


@contextmanager
def limited(size: int) -> Iterator[None]:
    """MemoryError as soon as this process takes so many bytes more than at the beginning of the block."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    (used,) = re.findall(r"^VmData:\t *(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    resource.setrlimit(resource.RLIMIT_DATA, (int(used) * 1024 + size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
