"""A payload on its way into the hypervisor: what each step of the loader hands to the next."""

from functools import cached_property
from mmap import mmap
from typing import NamedTuple

from lpmangle import elf
from lpmangle.loader.rules import Rule
from lpmangle.xen.abi import LIVEPATCH_MAX_SIZE
from lpmangle.xen.machines import ARM32, Machine


class Function(NamedTuple):
    """struct livepatch_func after relocation."""

    name: int
    new_addr: int
    old_addr: int
    new_size: int
    old_size: int
    version: int
    expect: bytes  # struct livepatch_expectation: flags, data


class Header(NamedTuple):
    """Elf_Shdr."""

    name: int
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int
    info: int
    addralign: int
    entsize: int


class Image:
    """A payload on its way into the hypervisor. Filled in by the steps of the loader, in their order."""

    def __init__(self, data: bytes, machine: Machine) -> None:
        self.data = data
        self.machine = machine
        self.headers: list[Header] = []  # [0] is a place-holder: Xen never looks at section 0
        self.names: list[bytes] = []
        self.shstrndx = 0
        self.symtab = 0
        # Per symbol: name, st_shndx, st_value. Symbol 0 is a place-holder.
        self.symbols: list[tuple[bytes, int, int]] = []
        # By `memory`.
        self.addresses: list[int | None] = []  # per section, as loaded; None if it is not
        self.base = 0
        self.memory: bytearray | mmap = bytearray()
        self.text_size = 0
        self.values: list[int] = []  # per symbol
        self.ignored: set[int] = set()  # symbols in sections that are not loaded
        self.compact_relocations = False  # it has some, which Xen ignores
        self.referenced: set[int] = set()  # symbols that a relocation refers to
        self.unresolved: set[int] = set()  # symbols whose address we do not know
        # By `prepare` and what it calls.
        self.functions: list[Function] = []
        self.functions_writable = False  # their section is
        self.vetoing = False  # has an enabled preapply, postapply, prerevert or postrevert hook
        self.fatal_hook: tuple[Rule, str] | None = None  # one that would crash Xen when it applies the payload
        self.build_id = b""
        self.depends = b""
        self.xen_depends = b""
        # By `names`: the registered symbols that do not override.
        self.new: list[int] = []

    @cached_property
    def bindings(self) -> list[int]:
        """STB_* of each symbol. Xen never looks at them; people do."""
        header, layout = self.headers[self.symtab], self.machine.layout
        at, step = header.offset + (4 if layout.is_64 else 12), header.entsize
        return [self.data[at + index * step] >> 4 for index in range(len(self.symbols))]

    def section(self, name: bytes) -> int:
        """Number of the first section of that name, 0 if there is none (livepatch_elf_sec_by_name)."""
        try:
            return self.names.index(name, 1)
        except ValueError:
            return 0

    def file_content(self, number: int) -> bytes:
        header = self.headers[number]
        if header.type == elf.SHT_NOBITS:
            return bytes(min(header.size, LIVEPATCH_MAX_SIZE))  # a larger one is never loaded
        return self.data[header.offset : header.offset + header.size]

    def read(self, address: int, size: int) -> bytes:
        """At most `size` bytes at an address in the loaded payload; empty if it is outside."""
        start = address - self.base
        return bytes(self.memory[start : start + size]) if 0 <= start < len(self.memory) else b""

    def unaligned(self, address: int) -> bool:
        """Whether reading a word there crashes Xen: on 32-bit Arm it has alignment checked (HSCTLR.A)."""
        return self.machine is ARM32 and bool(address % 4)

    def pointer(self, address: int | None) -> str:
        """`%p`; question marks if the address is not known."""
        digits = 2 * self.machine.pointer
        return "?" * digits if address is None else f"{address:0{digits}x}"

    def wraps(self, number: int) -> bool:
        """Whether a section's end is beyond the address space, which Xen does not notice."""
        header = self.headers[number]
        return header.type != elf.SHT_NOBITS and header.offset + header.size > self.machine.mask


def hexadecimal(number: int) -> str:
    """`%#x` and `%#lx`, which have no 0x before a 0."""
    return f"{number:#x}" if number else "0"
