"""Source lines of places in a payload, by addr2line (binutils), which reads DWARF of relocatable files.

It is given the section of a symbol and the offset in it. A mangled payload serves as well as the original: the renaming
moves nothing. Files are taken by build-id: those that were named, then those that the sources know of.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress

from lpmangle import elf
from lpmangle.errors import FileError, LpmangleError, PayloadError, about
from lpmangle.store.local import paths_in
from lpmangle.store.source import Sources
from lpmangle.system import files
from lpmangle.trace.lookup import Candidate
from lpmangle.xen.abi import MAX_NAME
from lpmangle.xen.payload import Payload

TIMEOUT = 30.0  # seconds for one place


class Lines:
    """Answers are kept: a trace that repeats costs no more."""

    def __init__(self, sources: Sources, debug_files: Sequence[str], trouble: list[LpmangleError]) -> None:
        """Raises FileError, ElfError for a debug file that cannot be read. Later troubles go to `trouble`."""
        self._sources = sources
        self._trouble = trouble
        self._named: dict[str, str] = {}
        self._files: dict[str, list[str]] = {}
        self._places: dict[str, dict[bytes, tuple[str, int]]] = {}  # section and st_value, by build-id and name
        self._known: dict[tuple[str, bytes, int], str] = {}
        if not shutil.which("addr2line"):
            trouble.append(FileError("is not installed (binutils): no source lines", path="addr2line"))
        for word in debug_files:
            if not os.path.isdir(word):
                self._named[_build_id(word)] = word
                continue
            for path in paths_in(word):
                with suppress(LpmangleError):  # in a folder by chance
                    self._named.setdefault(_build_id(path), path)

    def line_of(self, candidate: Candidate, name: bytes, offset: int) -> str:
        """FILE:LINE of the mangled `name` + `offset`; empty if it is not known."""
        key = (candidate.build_id, name, offset)
        if key not in self._known:
            try:
                self._known[key] = self._ask(*key)
            except LpmangleError as error:
                self._trouble.append(error)
                self._known[key] = ""
        return self._known[key]

    def _ask(self, build_id: str, name: bytes, offset: int) -> str:
        if build_id not in self._places:
            self._files[build_id] = list(self._files_of(build_id))
            self._places[build_id] = {
                symbol.name.encode()[:MAX_NAME]: (symbol.section, symbol.value)
                for found in self._sources.with_build_id(build_id)
                for symbol in found.manifest.symbols
            }
        if name[:MAX_NAME] not in self._places[build_id]:  # a payload without build-id
            return ""
        section, value = self._places[build_id][name[:MAX_NAME]]
        lines = (_addr2line(path, section, value + offset) for path in self._files[build_id])
        return next(filter(None, lines), "")

    def _files_of(self, build_id: str) -> Iterator[str]:
        if build_id in self._named:
            yield self._named[build_id]
        for path in self._sources.debug_files(build_id):
            try:
                if _build_id(path) != build_id:
                    raise PayloadError("is not the payload of its manifest, no source lines from it", path=path)
                yield path
            except LpmangleError as error:
                self._trouble.append(error)


def _build_id(path: str) -> str:
    with about(path):
        return (Payload(elf.parse_sections(files.read(path).data)).build_id or b"").hex()


def _addr2line(path: str, section: str, address: int) -> str:
    command = ["addr2line", "-e", path, "-j", section, hex(address)]
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)
        line = done.stdout.decode("utf-8", "surrogateescape").strip()
        if done.returncode == 0 and not line.startswith("??") and line.isprintable():
            return line.removesuffix(":?").removesuffix(":0")
    return ""
