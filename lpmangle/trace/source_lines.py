"""Source lines of places in a payload, by addr2line (binutils), which reads DWARF of relocatable files.

addr2line gets the section of a symbol and the offset in it. The mangled payload serves as well as the original, because
renaming moves nothing. Files are found by build-id: first those that were named, then those that the sources know.
"""

import os
import select
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from lpmangle import elf
from lpmangle.errors import FileError, LpmangleError, PayloadError, about
from lpmangle.store.local import paths_in
from lpmangle.store.source import Sources
from lpmangle.system import files
from lpmangle.trace.lookup import Candidate
from lpmangle.trace.retrace import Spot
from lpmangle.xen.abi import MAX_NAME
from lpmangle.xen.payload import Payload

TIMEOUT = 30.0  # seconds for one place
# Xen accepts payloads of 2 MiB.
MAX_ADDRESS = 1 << 31
# With more of them running, no file descriptors would be left.
MOST_PROCESSES = 32
# So many addresses are written at once. They take less than PIPE_BUF bytes, so writing them never waits.
AT_ONCE = 256


class _Symbol(NamedTuple):
    """Where a symbol is: section, st_value, st_size."""

    section: str
    value: int
    size: int


class Lines:
    """Source lines; answers are kept, so that a repeated trace is fast."""

    def __init__(self, sources: Sources, debug_files: Sequence[str], trouble: list[LpmangleError]) -> None:
        """Raises FileError, ElfError for a debug file that cannot be read. Later troubles go to `trouble`."""
        self._sources = sources
        self._trouble = trouble
        self._named: dict[str, str] = {}
        self._files: dict[str, list[str]] = {}
        self._symbols: dict[str, dict[bytes, list[_Symbol]]] = {}  # by build-id and name
        self._known: dict[tuple[str, Spot], str | None] = {}
        self._running: dict[tuple[str, str], _Addr2line] = {}  # by file and section
        self._prepared: dict[tuple[str, str, int], str] = {}  # by file, section, and address in it
        if not shutil.which("addr2line"):
            trouble.append(FileError("is not installed (binutils): no source lines", path="addr2line"))
        for word in debug_files:
            if not os.path.isdir(word):
                self._named[_build_id(word)] = word
                continue
            for path in paths_in(word):
                with suppress(LpmangleError):  # some other file in a folder
                    self._named.setdefault(_build_id(path), path)

    def line_of(self, candidate: Candidate, spot: Spot) -> str | None:
        """FILE:LINE of a place: empty if it is not known, None if the payload has no symbol of that name."""
        key = (candidate.build_id, spot)
        if key not in self._known:
            try:
                self._known[key] = self._ask(*key)
            except LpmangleError as error:
                self._trouble.append(error)
                self._known[key] = ""
        return self._known[key]

    def prepare(self, places: Iterable[tuple[Candidate, Spot]]) -> None:
        """Ask for many places at once, so that `line_of` need not wait for each of them."""
        wanted: dict[tuple[str, str], set[int]] = {}
        for candidate, spot in places:
            if (candidate.build_id, spot) in self._known:
                continue
            with suppress(LpmangleError):  # `line_of` says so
                for symbol in self._symbols_at(candidate.build_id, spot) or ():
                    for path in self._files[candidate.build_id][:1]:
                        wanted.setdefault((path, symbol.section), set()).add(symbol.value + spot.offset)
        self._prepared = {
            (path, section, address): line
            for (path, section), addresses in wanted.items()
            for address, line in self._addr2line(path, section).lines(sorted(addresses)).items()
        }

    def close(self) -> None:
        """End the processes that were started."""
        while self._running:
            self._running.popitem()[1].end()

    def _ask(self, build_id: str, spot: Spot) -> str | None:
        several = self._symbols_at(build_id, spot)
        if several is None:
            return None
        lines = {self._line(build_id, symbol, spot.offset) for symbol in several}
        return lines.pop() if len(lines) == 1 else ""

    def _symbols_at(self, build_id: str, spot: Spot) -> list[_Symbol] | None:
        """The symbols that may be meant; None if the payload has none of that name."""
        if not build_id:
            return []
        if build_id not in self._symbols:
            self._symbols[build_id] = self._symbols_of(build_id)
            self._files[build_id] = list(self._files_of(build_id))
        several = self._symbols[build_id].get(spot.name[:MAX_NAME])
        # Functions of the same name are told apart by size, if it is given and different.
        return several and ([symbol for symbol in several if symbol.size == spot.size] or several)

    def _line(self, build_id: str, symbol: _Symbol, offset: int) -> str:
        address = symbol.value + offset
        for path in self._files[build_id]:
            line = self._prepared.get((path, symbol.section, address))
            if line is None:
                line = self._addr2line(path, symbol.section).line(address)
            if line:
                return line
        return ""

    def _addr2line(self, path: str, section: str) -> "_Addr2line":
        if (path, section) not in self._running:
            while len(self._running) >= MOST_PROCESSES:
                self._running.pop(next(iter(self._running))).end()
            self._running[path, section] = _Addr2line(path, section)
        return self._running[path, section]

    def _symbols_of(self, build_id: str) -> dict[bytes, list[_Symbol]]:
        found: dict[bytes, list[_Symbol]] = {}
        for each in self._sources.with_build_id(build_id):
            for symbol in each.manifest.symbols:
                several = found.setdefault(symbol.name.encode()[:MAX_NAME], [])
                several.append(_Symbol(symbol.section, symbol.value, symbol.size))
        return found

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


class _Addr2line:
    """One addr2line for all places in a section of a file: it reads the file once.

    With -a it prints the address before each line, so that an extra line (a file name with a newline) is noticed.
    """

    def __init__(self, path: str, section: str) -> None:
        self._command = ["addr2line", "-a", "-e", path, "-j", section]
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def lines(self, addresses: Sequence[int]) -> dict[int, str]:
        """FILE:LINE of many places; empty if there is none. Those missing must be asked for one by one."""
        found: dict[int, str] = {}
        if not self._process:
            return found
        addresses = [address for address in addresses if address <= MAX_ADDRESS]
        for at in range(0, len(addresses), AT_ONCE):
            several = addresses[at : at + AT_ONCE]
            answer = self._ask(several).split(b"\n")
            if len(answer) != 2 * len(several) + 1 or not all(map(_is_shown, answer[::2], several)):
                # Which answer was strange cannot be told, nor how much of it is still to come.
                self.end()
                self._start()
                break
            found.update(zip(several, map(_place, answer[1::2]), strict=True))
        return found

    def line(self, address: int) -> str:
        """The same of one place. After a timeout or a strange answer, nothing more is asked."""
        if not self._process or address > MAX_ADDRESS:
            return ""
        shown, _, rest = self._ask([address]).partition(b"\n")
        if not rest.endswith(b"\n") or not _is_shown(shown, address):
            self.end()
            return ""
        return _place(rest[:-1])

    def _start(self) -> None:
        with suppress(OSError):
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
            )

    def _ask(self, addresses: Sequence[int]) -> bytes:
        """Two lines for each address, or what has come at the end or after TIMEOUT."""
        assert self._process
        assert self._process.stdin
        assert self._process.stdout
        answer, missing = b"", 2 * len(addresses)
        with suppress(OSError):  # it has ended
            self._process.stdin.write(b"".join([b"%#x\n" % address for address in addresses]))
            while missing > 0 and select.select([self._process.stdout], [], [], TIMEOUT)[0]:
                more = self._process.stdout.read(1 << 16)
                if not more:
                    break
                answer += more
                missing -= more.count(b"\n")
        return answer

    def end(self) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _is_shown(line: bytes, address: int) -> bool:
    return line == b"0x%0*x" % (len(line) - 2, address)


def _place(line: bytes) -> str:
    text = line.decode("utf-8", "surrogateescape")
    if text.startswith("??") or not text.isprintable():
        return ""
    return text.removesuffix(":?").removesuffix(":0")
