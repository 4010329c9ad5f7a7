"""The running hypervisor as payloads meet it: its symbols, its code, its build-id and version."""

from functools import cached_property

from lpmangle import elf
from lpmangle.errors import ElfError, about
from lpmangle.system import files
from lpmangle.xen.abi import BUILD_ID_SECTION
from lpmangle.xen.lookalikes import Lookalikes
from lpmangle.xen.machines import MACHINES, X86_64, Machine
from lpmangle.xen.notes import parse_build_id
from lpmangle.xen.version_in_code import read_version
from lpmangle.xen.versions import Version
from lpmangle.xen.xensyms import HINT, captured_symbols, kept_symbols

XEN_VIRT_START = 0xFFFF82D040000000  # of x86 (asm/config.h)
_GZIP = b"\x1f\x8b"
# Names that mark the end of the hypervisor, after which payloads are mapped.
_END_SYMBOLS = (b"__2M_rwdata_end", b"_end")


class Hypervisor:
    """The running hypervisor, from its xen-syms or from a copy of /proc/xen/xensyms.

    The copy has no build-id, code or version; None means that they are not known.
    """

    def __init__(self, symbols: dict[bytes, int]) -> None:
        self.symbols = symbols
        self.build_id: bytes | None = None
        self.version: Version | None = None
        self.machine: Machine | None = None
        self._contents: list[tuple[int, int, memoryview]] | None = None  # address, size, what is in the file

    @classmethod
    def at(cls, path: str) -> "Hypervisor":
        """The one whose xen-syms, or copy of /proc/xen/xensyms, is at `path`. Raises FileError, ElfError."""
        with about(path):
            return cls.read_from(files.read(path).data)

    @classmethod
    def read_from(cls, data: bytes) -> "Hypervisor":
        """Raises ElfError for anything else."""
        if data.startswith(_GZIP):
            raise ElfError("is compressed with gzip", hint=f"unpack it; if that has no symbols, {HINT}")
        if data[:4] != elf.ELFMAG:
            found = cls({name: address for address, name in captured_symbols(data)})
            if not found.symbols:
                raise ElfError("is neither a xen-syms nor a copy of /proc/xen/xensyms", hint=HINT)
            if max(found.symbols.values()) >= XEN_VIRT_START:
                found.machine = X86_64
            return found
        if not any(section.type == elf.SHT_SYMTAB for section in elf.parse_sections(data, elf.ET_EXEC).sections):
            raise ElfError("has no symbol table", hint=HINT)
        view = elf.parse(data, elf.ET_EXEC)
        if view.machine not in MACHINES or view.layout.word.format[0] == ">":
            raise ElfError(f"is for a machine ({view.machine}) on which Xen has no live patching")
        found = cls({name: address for address, _, name in kept_symbols(view)})
        found.machine = MACHINES[view.machine]
        found._contents = []
        for section in view.sections[1:]:
            if not section.flags & elf.SHF_ALLOC:
                continue
            content = view.section_data(section)
            found._contents.append((view.section_address(section), section.size, content))
            if section.name == BUILD_ID_SECTION:
                found.build_id = parse_build_id(bytes(content), len(content), view.layout.word)[1] or None
        found.version = read_version(found.machine, found.symbols, lambda at, size: found.read(at, size) or b"")
        return found

    @property
    def has_build_id(self) -> bool | None:
        """None if it is not known."""
        return None if self._contents is None and self.build_id is None else self.build_id is not None

    @cached_property
    def local_names(self) -> set[bytes]:
        """The names of its local symbols, without their files."""
        return {name.rpartition(b"#")[2] for name in self.symbols if b"#" in name}

    @cached_property
    def lookalikes(self) -> Lookalikes:
        return Lookalikes(self.symbols)

    @cached_property
    def init(self) -> range:
        """The addresses that are freed after boot, its init sections; empty if they are not known."""
        return range(self.symbols.get(b"__init_begin", 0), self.symbols.get(b"__init_end", 0))

    def read(self, address: int, size: int) -> bytes | None:
        """At most `size` bytes of the hypervisor's image; empty if nothing is mapped there, None if not known."""
        if self._contents is None:
            return None
        for start, length, content in self._contents:
            at = address - start
            if 0 <= at < length:
                # NOBITS: there is memory, but its content is not known before boot.
                return bytes(content[at : at + size]).ljust(min(size, length - at), b"\0")
        return b""

    @property
    def end(self) -> int | None:
        return next((self.symbols[name] for name in _END_SYMBOLS if name in self.symbols), None)
