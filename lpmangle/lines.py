"""Source lines of places in a payload, by addr2line (binutils), which reads DWARF of relocatable files.

It is given the section of a symbol and the offset in it. A mangled payload serves as well as the original: the renaming
moves nothing. If the payload was stripped, the file before that serves (`debug_files`).
"""

import subprocess
from collections.abc import Sequence
from contextlib import suppress

from lpmangle import elf, files
from lpmangle.errors import LpmangleError
from lpmangle.lookup import Candidate
from lpmangle.manifest import decode
from lpmangle.manifest_writer import beside
from lpmangle.sources import local
from lpmangle.xen import Payload

TIMEOUT = 30.0  # seconds for one place
_ENDING = beside("")


class Lines:
    """Answers are kept: a trace that repeats costs no more."""

    def __init__(self, debug_files: Sequence[str], trouble: list[LpmangleError]) -> None:
        """Raises FileError, ElfError for a debug file that cannot be read. Later troubles go to `trouble`."""
        self._trouble = trouble
        self._by_build_id: dict[str, str] = {}
        self._places: dict[str, dict[bytes, tuple[str, int]]] = {}
        self._known: dict[tuple[str, bytes, int], str] = {}
        for path in debug_files:
            view = elf.parse(files.read(path).data)
            self._by_build_id[(Payload(view).build_id or b"").hex()] = path

    def line_of(self, candidate: Candidate, name: bytes, offset: int) -> str:
        """FILE:LINE of the mangled `name` + `offset`; empty if it is not known."""
        key = (candidate.where, name, offset)
        if key not in self._known:
            try:
                self._known[key] = self._ask(candidate, name, offset)
            except LpmangleError as error:
                self._trouble.append(error)
                self._known[key] = ""
        return self._known[key]

    def _ask(self, candidate: Candidate, name: bytes, offset: int) -> str:
        where = candidate.where
        path = self._by_build_id.get(candidate.build_id) or where.removesuffix(_ENDING)
        if where not in self._places:
            manifest = decode(local.load(where).text)
            self._places[where] = {s.name.encode(): (s.section, s.value) for s in manifest.symbols}
        section, value = self._places[where][name]
        command = ["addr2line", "-e", path, "-j", section, hex(value + offset)]
        with suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT)
            line = done.stdout.decode("utf-8", "surrogateescape").strip()
            if done.returncode == 0 and not line.startswith("??") and line.isprintable():
                return line.removesuffix(":?").removesuffix(":0")
        return ""
