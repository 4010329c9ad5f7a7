"""What a hypervisor looks like to a payload: its own symbols and code, and the payloads that are loaded."""

from collections.abc import Iterable
from functools import cached_property
from mmap import mmap
from typing import NamedTuple

from lpmangle import elf
from lpmangle.errors import ElfError, NamingError, about
from lpmangle.loader.profile import NEWEST, Rules, Version, parse_version, rules_of
from lpmangle.system import files
from lpmangle.xen.machines import MACHINES, X86_64, Machine
from lpmangle.xen.xensyms import captured_symbols, kept_symbols

PAGE = 4096
ENDBR64 = b"\xf3\x0f\x1e\xfa"
# The second is what sealing at boot makes of one that nothing jumps to (xen/arch/x86/include/asm/endbr.h).
ENDBR64_FORMS = (ENDBR64, b"\x66\x0f\x1f\x01")
# Names that mark the end of the hypervisor, behind which payloads are mapped.
_END_SYMBOLS = (b"__2M_rwdata_end", b"_end")
# vm_init_type takes the first pages of the area for its bitmap: one bit for each page of a GiB.
_VMAP_BITMAP_PAGES = 8


class Hypervisor:
    """The running hypervisor, from its xen-syms or from a copy of /proc/xen/xensyms.

    The copy has neither build-id nor code nor version; None says that it is not known.
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
        """Raises ElfError for anything that is neither."""
        if data[:4] != elf.ELFMAG:
            found = cls({name: address for address, name in captured_symbols(data)})
            if not found.symbols:
                raise ElfError("is neither a xen-syms nor a copy of /proc/xen/xensyms")
            if max(found.symbols.values()) >= X86_64.base - (1 << 30):
                found.machine = X86_64
            return found
        view = elf.parse(data, elf.ET_EXEC)
        if view.machine not in MACHINES or view.layout.word.format[0] == ">":
            raise ElfError(f"is for a machine ({view.machine}) on which Xen has no live patching")
        found = cls({name: address for address, _, name in kept_symbols(view)})
        found.machine = MACHINES[view.machine]
        found._contents = []
        for section in view.sections[1:]:
            if not section.flags & elf.SHF_ALLOC:
                continue
            (_, _, _, address, *_) = view.layout.shdr.unpack_from(data, view.section_header_offset(section.number))
            content = view.section_data(section)
            found._contents.append((address, section.size, content))
            if section.name == ".note.gnu.build-id":
                found.build_id = bytes(content[16 : 16 + int.from_bytes(content[4:8], "little")])
        found.version = _version(found)
        return found

    @cached_property
    def local_names(self) -> set[bytes]:
        """The names of its local symbols, without the files that they stand in."""
        return {name.rpartition(b"#")[2] for name in self.symbols if b"#" in name}

    def read(self, address: int, size: int) -> bytes | None:
        """At most `size` bytes of the hypervisor's image; none if nothing is mapped there, None if not known."""
        if self._contents is None:
            return None
        for start, length, content in self._contents:
            at = address - start
            if 0 <= at < length:
                # NOBITS: there is memory, but what is in it is not known before boot.
                return bytes(content[at : at + size]).ljust(min(size, length - at), b"\0")
        return b""

    @property
    def end(self) -> int | None:
        return next((self.symbols[name] for name in _END_SYMBOLS if name in self.symbols), None)


def _version(xen: Hypervisor) -> Version | None:
    """What xen_major_version, xen_minor_version and xen_extra_version return, read from their code on x86_64."""
    numbers = []
    for name in (b"xen_major_version", b"xen_minor_version"):
        code = _code(xen, name, 5)
        if code[:1] != b"\xb8":  # mov $NUMBER, %eax
            return None
        numbers.append(str(int.from_bytes(code[1:5], "little")))
    extra, code = b"", _code(xen, b"xen_extra_version", 7)
    if code[:3] == b"\x48\x8d\x05":  # lea DISPLACEMENT(%rip), %rax
        start = _start(xen, b"xen_extra_version") + 7 + int.from_bytes(code[3:], "little", signed=True)
        extra = (xen.read(start, 64) or b"").partition(b"\0")[0]
    try:
        return parse_version(".".join(numbers) + extra.decode("ascii", "replace"))
    except NamingError:
        return None


def _start(xen: Hypervisor, name: bytes) -> int:
    address = xen.symbols.get(name, 0)
    return address + 4 if xen.read(address, 4) == ENDBR64 else address


def _code(xen: Hypervisor, name: bytes, size: int) -> bytes:
    return xen.read(_start(xen, name), size) or b""


class Function(NamedTuple):
    """struct livepatch_func after relocation."""

    name: int
    new_addr: int
    old_addr: int
    new_size: int
    old_size: int
    version: int
    expect: bytes  # struct livepatch_expectation: flags, data


class Loaded:
    """A payload that is loaded: what it leaves for those after it to meet. `symbols` are its new ones, cut."""

    def __init__(
        self,
        name: str,
        build_id: bytes,
        depends: bytes,
        symbols: dict[bytes, int],
        base: int,
        memory: bytearray | mmap,
        vetoing: bool,
        functions: list[Function],
    ) -> None:
        self.name = name
        self.build_id = build_id
        self.depends = depends
        self.symbols = symbols
        self.base = base
        self.memory = memory
        self.vetoing = vetoing  # has an enabled preapply, postapply, prerevert or postrevert hook
        self.functions = functions

    def replaces(self, address: int, state: "State") -> bool:
        """Whether it puts a jump at `address` when it is applied."""
        return any(address == self.old_address(function, state) for function in self.functions)

    def old_address(self, function: Function, state: "State") -> int | None:
        """The address of the function that one of ours replaces; None if it is not known."""
        return function.old_addr or state.find(self.string(function.name))

    def string(self, address: int) -> bytes:
        """The C string at an address of the payload's memory."""
        start = address - self.base
        if not 0 <= start < len(self.memory):
            return b""
        return bytes(self.memory[start : start + elf.MAX_NAME_BYTES].partition(b"\0")[0])


class State:
    """A hypervisor with payloads: `loaded` in the order of their uploads, `applied` in that of applying.

    `xen` is None if nothing is known about the hypervisor but its version.
    """

    def __init__(
        self,
        xen: Hypervisor | None = None,
        version: Version | None = None,
        loaded: Iterable[Loaded] = (),
        applied: Iterable[Loaded] = (),
        allocator: "Allocator | None" = None,
    ) -> None:
        self.xen = xen
        self.rules: Rules = rules_of(version or (xen and xen.version) or NEWEST)
        self.machine = xen.machine if xen else None  # if not known, that of the first payload
        self.allocator = allocator
        self.loaded = list(loaded)
        self.applied = list(applied)
        self.asked: set[bytes] | None = None  # if wanted: every name that was looked up

    def copy(self) -> "State":
        state = State(self.xen, self.rules.version, self.loaded, self.applied, self.allocator)
        state.machine = self.machine
        return state

    def find(self, name: bytes) -> int | None:
        """symbols_lookup_by_name, then livepatch_symbols_lookup_by_name: the address of `name`, not 0.

        Payloads keep 126 bytes of a name, so a longer one is not found there.
        """
        if self.asked is not None:
            self.asked.add(name)
        if self.xen and name and (address := self.xen.symbols.get(name)):
            return address
        for payload in self.loaded:
            if address := payload.symbols.get(name):
                return address
        return None

    def holder(self, name: bytes) -> str | None:
        """Who has a new symbol of that name already, in our words; None if nobody (build_symbol_table)."""
        if self.asked is not None:
            self.asked.add(name)
        if self.xen and name in self.xen.symbols:
            return "the hypervisor"
        return next((payload.name for payload in self.loaded if name in payload.symbols), None)

    def read(self, address: int, size: int) -> bytes | None:
        """At most `size` bytes of the hypervisor's or a payload's memory; none if nothing is there, None if unknown."""
        for payload in self.loaded:
            start = address - payload.base
            if 0 <= start < len(payload.memory):
                return bytes(payload.memory[start : start + size])
        return self.xen.read(address, size) if self.xen else None

    def free_address(self, pages: int, machine: Machine) -> int:
        """Where `pages` pages are mapped: the first gap, a page left free before it (xen/common/vmap.c:vm_alloc)."""
        end = self.xen.end if self.xen else None
        at = (machine.base if end is None else _round_up(end)) + (_VMAP_BITMAP_PAGES + 1) * PAGE
        if self.allocator:
            return self.allocator.take(at, pages)
        for start, size in sorted((payload.base, len(payload.memory)) for payload in self.loaded):
            if at + pages * PAGE < start:
                break
            at = start + size + PAGE
        return at


class Allocator:
    """Gives every payload memory of its own, also to those that are never loaded together."""

    AREA = 512 << 20

    def __init__(self) -> None:
        self._used = 0

    def take(self, base: int, pages: int) -> int:
        start = self._used
        self._used = (start + (pages + 1) * PAGE) % self.AREA
        return base + start


def _round_up(address: int) -> int:
    return (address + PAGE - 1) & -PAGE
