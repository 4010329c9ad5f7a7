"""`retrace --json`: an object for each line of a log, with its text and the names that were put back in it."""

import json
from collections.abc import Callable
from typing import Any

from lpmangle.trace.retrace import MAX_LINE, Replaced, Retracer


class Records:
    """Collects what a retracer has put back in a line; `found` is for its `tell_found`."""

    def __init__(self) -> None:
        self._names: list[dict[str, Any]] = []

    def found(self, replaced: Replaced) -> None:
        """A name was put back. If several payloads with the same original fit, the first is named."""
        candidate, (file, _, line) = replaced.candidate, replaced.place.rpartition(":")
        if not line.isdecimal():  # a file without a line
            file, line = replaced.place, ""
        self._names.append(
            {
                "name": _text(replaced.name),
                "original": _text(candidate.original),
                "payload": candidate.payload,
                "build_id": candidate.build_id or None,
                "file": file or None,
                "line": int(line) if line else None,
            }
        )

    def copy(self, path: str, fd: int, write: Callable[[list[bytes]], None], retracer: Retracer) -> None:
        """As `retrace.copy`, an object on each line. Raises OSError."""
        retracer.begin(path, fd)
        with open(fd, "rb", closefd=False) as file:
            while line := file.readline(MAX_LINE):
                self._emit(retracer.feed(line), write)
        self._emit(retracer.end(), write)

    def _emit(self, pieces: list[bytes], write: Callable[[list[bytes]], None]) -> None:
        if pieces:
            record = {"text": _text(b"".join(pieces)).removesuffix("\n"), "names": self._names}
            write([json.dumps(record).encode() + b"\n"])
            self._names = []


def _text(text: bytes) -> str:
    """Bytes that are not UTF-8 become escapes."""
    return text.decode("utf-8", "backslashreplace")
