"""Mangled names that were not put back: why, how many there are, and where the first ones are."""

import os
import stat
from contextlib import suppress
from enum import Enum
from typing import NamedTuple

from lpmangle.xen.abi import MAX_NAME

# The most places that are kept of each kind, and the most unknown build-ids that are counted separately.
MAX_PLACES = 20
MAX_BUILD_IDS = 1000
# Counting lines adds a fifth to the time: in a pipe, it ends after this many bytes.
MAX_COUNTED = 1 << 28
_BLOCK = 1 << 20
_BLANKS = (b" ", b"\t", b"\n", b"\r", b"\0")


class Reason(Enum):
    """Why a name stays although its manifest is there."""

    NO_SUCH_NAME = "no such name"
    WRAPPED = "wrapped"
    WIDE = "UTF-16"


class Place(NamedTuple):
    """A name that stays, and where it is: `line 7`, or `byte 1234` if lines are no longer counted."""

    path: str
    where: str
    name: bytes


class Unknown(NamedTuple):
    """A build-id that is in no manifest: how many names have it, and the first of them."""

    times: int
    first: Place


class LineNumbers:
    """The line of a byte. A file is read again up to that byte; in a pipe, lines are counted as they pass.

    The offsets of the bytes must not decrease.
    """

    def __init__(self, fd: int = -1) -> None:
        self._fd = self._origin = -1
        self._passed = 0  # bytes of the input before the current text
        self._at = self._newlines = 0  # the number of newlines before byte `_at`
        with suppress(OSError):
            if stat.S_ISREG(os.fstat(fd).st_mode):
                self._fd, self._origin = fd, os.lseek(fd, 0, os.SEEK_CUR)

    def pass_over(self, text: bytes | bytearray, size: int) -> None:
        """The current text is now the one after `text[:size]`."""
        self._passed += size
        if self._fd < 0 and self._passed <= MAX_COUNTED:
            self._at = self._passed
            self._newlines += text.count(b"\n", 0, size)

    def where(self, text: bytes, place: int) -> str:
        """The line of `text[place]` in the input, or the number of the byte."""
        offset = self._passed + place
        if self._fd < 0:
            newlines = self._newlines + text.count(b"\n", 0, place)
            return f"line {newlines + 1}" if self._at == self._passed else f"byte {offset}"
        with suppress(OSError):
            while self._at < offset and (
                data := os.pread(self._fd, min(_BLOCK, offset - self._at), self._origin + self._at)
            ):
                self._newlines += data.count(b"\n")
                self._at += len(data)
        return f"line {self._newlines + 1}"


class Missed:
    """The missed names of all inputs."""

    def __init__(self) -> None:
        self.unknown: dict[bytes, Unknown] = {}  # by build-id
        self.unknown_times = 0
        self.times = dict.fromkeys(Reason, 0)
        self.places: dict[Reason, list[Place]] = {kind: [] for kind in Reason}
        self.wide_inputs: list[str] = []  # paths of those that begin with a byte-order mark of UTF-16
        self.lines = LineNumbers()
        self._path = ""

    def begin(self, path: str, fd: int) -> None:
        """Start a new input."""
        self._path = path
        self.lines = LineNumbers(fd)

    def add_mark(self) -> None:
        """The input begins with a byte-order mark of UTF-16."""
        self.wide_inputs.append(self._path)

    def add(self, kind: Reason, text: bytes, low: int, high: int, name: bytes = b"") -> None:
        """Add a name at `text[low:high]`; `name` is what to show if it is not the word there."""
        self.times[kind] += 1
        if len(self.places[kind]) < MAX_PLACES:
            self.places[kind].append(self._place(text, low, high, name))

    def add_unknown(self, build_id: bytes, text: bytes, low: int, high: int) -> None:
        """The same with a build-id that is in no manifest."""
        self.unknown_times += 1
        if build_id in self.unknown:
            times, first = self.unknown[build_id]
            self.unknown[build_id] = Unknown(times + 1, first)
        elif len(self.unknown) < MAX_BUILD_IDS:
            self.unknown[build_id] = Unknown(1, self._place(text, low, high))

    def _place(self, text: bytes, low: int, high: int, name: bytes = b"") -> Place:
        if not name:
            name = word(text, low, high)
            low = high - len(name)
        return Place(self._path, self.lines.where(text, low), name)


def word(text: bytes, low: int, high: int) -> bytes:
    """`text[low:high]` with what precedes it up to a blank, at most the length of a name."""
    begin = max(0, high - MAX_NAME)
    return text[max(begin, *(text.rfind(blank, begin, low) + 1 for blank in _BLANKS)) : high]
