"""What Xen's livepatch loader makes of a payload.

Each rule names the function of Xen that it follows (xen/common/livepatch.c where no other file is named; the same in
Xen 4.14 to 4.21). ELF binding and symbol type play no part in any of them.
"""

from collections.abc import Iterator
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

from lpmangle import elf
from lpmangle.errors import PayloadError

KSYM_NAME_LEN = 127  # xen/include/xen/symbols.h
MAX_NAME = KSYM_NAME_LEN - 1  # build_symbol_table: strlcpy keeps this many bytes of a name
LIVEPATCH_MAX_SIZE = 2 << 20  # xen/include/xen/livepatch.h, verify_payload
PAGE_SIZE = 4096

FUNCS_SECTION = ".livepatch.funcs"
HOOKS_PREFIX = ".livepatch.hooks."
BUILD_ID_SECTION = ".note.gnu.build-id"
DEPENDS_SECTION = ".livepatch.depends"
XEN_DEPENDS_SECTION = ".livepatch.xen_depends"
NT_GNU_BUILD_ID = 3

# Relocation types that store a whole address: what livepatch_func.new_addr is filled in by.
ABSOLUTE_RELOCATION = {
    elf.EM_X86_64: 1,  # R_X86_64_64
    elf.EM_AARCH64: 257,  # R_AARCH64_ABS64
    elf.EM_ARM: 2,  # R_ARM_ABS32
}


class Kind(IntEnum):
    """What a symbol is to the loader (is_payload_symbol, build_symbol_table). Only the last two are registered."""

    NULL = 0
    UNDEFINED = 1
    ABSOLUTE = 2
    COMMON = 3
    NOT_LOADED = 4  # its section lacks SHF_ALLOC
    UNNAMED = 5
    MERGE_LOCAL = 6  # .L... in a SHF_MERGE section
    MAPPING = 7  # $a, $d, $t, $x on Arm
    OVERRIDING = 8  # at the new_addr of an entry of .livepatch.funcs
    NEW = 9


class Function(NamedTuple):
    """One entry of .livepatch.funcs (struct livepatch_func, xen/include/public/sysctl.h)."""

    start: int  # offset in the section
    version: int
    new_address: int | None  # relative to the start of the loaded payload; None when it is not in the payload


class Payload:
    """A relocatable ELF file seen with the loader's eyes. Properties raise PayloadError where Xen would refuse."""

    def __init__(self, view: elf.Object) -> None:
        self.elf = view

    @cached_property
    def load_addresses(self) -> list[int | None]:
        """Where each section is loaded, relative to the payload's text; None if it is not (move_payload, calc_section).

        Code, then writable, then read-only data, each region on pages of its own.
        """
        sizes = [0, 0, 0]
        placed: list[tuple[int, int] | None] = []
        for section in self.elf.sections:
            region = _region(section)
            if section.number == 0 or region is None:
                placed.append(None)
                continue
            # ROUNDUP is done with masks, on size_t: an alignment of 0 gives offset 0.
            mask = (section.addralign - 1) & (2**64 - 1)
            start = (sizes[region] + mask) & ~mask & (2**64 - 1)
            placed.append((region, start))
            sizes[region] = start + section.size
        bases = [0, _page_align(sizes[0]), _page_align(sizes[0]) + _page_align(sizes[1])]
        return [None if place is None else bases[place[0]] + place[1] for place in placed]

    def address(self, symbol: elf.Symbol) -> int | None:
        """Final address of a symbol relative to the loaded payload; None if it is not in a loaded section."""
        if symbol.st_shndx >= len(self.elf.sections):
            return None
        base = self.load_addresses[symbol.st_shndx]
        return None if base is None else base + symbol.st_value

    @cached_property
    def functions(self) -> list[Function]:
        """The entries of .livepatch.funcs, in order; none if the section is missing (hooks only)."""
        section = self.elf.section_named(FUNCS_SECTION)
        if section is None or section.size == 0:
            return []
        pointer = self.elf.layout.address.size
        # name, new_addr, old_addr (pointers); new_size, old_size (uint32); version (uint8); the rest is opaque.
        version_at = 3 * pointer + 8
        data = self.elf.section_data(section)
        if len(data) <= version_at:
            raise PayloadError(f"{FUNCS_SECTION}: {section.size} bytes are too few for one entry")
        version = data[version_at]
        if version not in (1, 2):
            raise PayloadError(f"{FUNCS_SECTION}: payload version {version}; Xen knows 1 and 2")
        entry = version_at + 32 + (40 if version == 2 else 0)
        if section.size % entry:
            raise PayloadError(f"{FUNCS_SECTION}: {section.size} bytes are no multiple of {entry} (version {version})")
        if self.elf.machine not in ABSOLUTE_RELOCATION:
            raise PayloadError(f"is for machine {self.elf.machine}; Xen takes livepatches for x86_64, aarch64 and arm")
        addresses = self._new_addresses(section, entry, pointer)
        functions = []
        for start in range(0, section.size, entry):
            if data[start + version_at] != version:
                raise PayloadError(f"{FUNCS_SECTION}: payload versions {version} and {data[start + version_at]} mixed")
            functions.append(Function(start, version, addresses.get(start)))
        return functions

    def _new_addresses(self, section: elf.Section, entry: int, pointer: int) -> dict[int, int | None]:
        """Offset of an entry of .livepatch.funcs -> its new_addr after relocation."""
        found = {}
        absolute = ABSOLUTE_RELOCATION[self.elf.machine]
        for relocation in self.elf.relocations(section):
            start = relocation.r_offset - pointer
            if start % entry or not 0 <= start < section.size or relocation.r_type != absolute:
                continue
            addend = relocation.r_addend
            if addend is None:
                (addend,) = self.elf.layout.address.unpack_from(self.elf.data, section.offset + relocation.r_offset)
            base = self.address(self.elf.symbol(relocation.r_sym))
            found[start] = None if base is None else base + addend
        return found

    @cached_property
    def kinds(self) -> bytes:
        """One Kind per symbol, in table order."""
        view = self.elf
        overridden = {function.new_address for function in self.functions} - {None}
        by_section = [_section_kind(section) for section in view.sections]
        by_section[0] = Kind.UNDEFINED
        mergeable = [bool(section.flags & elf.SHF_MERGE) for section in view.sections]
        bases = self.load_addresses
        data, names = view.data, view.strtab.offset
        is_arm = view.machine in (elf.EM_ARM, elf.EM_AARCH64)
        kinds = bytearray()
        for st_name, _, _, st_shndx, st_value, _ in view.symbol_fields():
            if st_shndx >= len(by_section):
                kinds.append(Kind.ABSOLUTE if st_shndx == elf.SHN_ABS else Kind.COMMON)
                continue
            kind = by_section[st_shndx]
            if kind == Kind.NEW:
                first = data[names + st_name]
                if first == 0:
                    kind = Kind.UNNAMED
                elif first == 0x2E and mergeable[st_shndx] and data[names + st_name + 1] == 0x4C:  # ".L"
                    kind = Kind.MERGE_LOCAL
                elif first == 0x24 and is_arm and is_mapping_symbol(view.string(st_name), view.machine):  # "$"
                    kind = Kind.MAPPING
                elif overridden:
                    base = bases[st_shndx]
                    if base is not None and base + st_value in overridden:
                        kind = Kind.OVERRIDING
            kinds.append(kind)
        kinds[0] = Kind.NULL
        return bytes(kinds)

    @property
    def build_id(self) -> bytes | None:
        return self._note(BUILD_ID_SECTION)

    @property
    def depends(self) -> bytes | None:
        """Build-id of what the payload must be applied on: the hypervisor's or the previous payload's."""
        return self._note(DEPENDS_SECTION)

    @property
    def xen_depends(self) -> bytes | None:
        """Build-id of the hypervisor that the payload was made for."""
        return self._note(XEN_DEPENDS_SECTION)

    def _note(self, name: str) -> bytes | None:
        """The descriptor of the build-id note in section `name` (xen/common/version.c:xen_build_id_check)."""
        section = self.elf.section_named(name)
        if section is None:
            return None
        note, word = bytes(self.elf.section_data(section)), self.elf.layout.word
        if len(note) > 12:
            name_size, size, kind = (word.unpack_from(note, at)[0] for at in (0, 4, 8))
            start = 12 + (name_size + 3) // 4 * 4
            # Xen counts the note without its padding, and looks no further than the NUL of "GNU".
            fits = name_size >= 4 and 0 < size <= len(note) - 12 - name_size and start + size <= len(note)
            if fits and note[12:16] == b"GNU\0" and kind == NT_GNU_BUILD_ID:
                return note[start : start + size]
        raise PayloadError(f"{name}: not a GNU build-id note")


def is_mapping_symbol(name: bytes, machine: int) -> bool:
    """Whether an Arm toolchain's marker: $d, $x (arm64), $a, $t (arm32), bare or with .anything.

    xen/arch/arm/arm{32,64}/livepatch.c:arch_livepatch_symbol_ok. $t, which makes Xen refuse the payload
    (arch_livepatch_symbol_deny), is one as well: renamed it would slip through.
    """
    letters = b"dx" if machine == elf.EM_AARCH64 else b"adt"
    return len(name) >= 2 and name[1] in letters and name[2:3] in (b"", b".")


def registered(kinds: bytes) -> Iterator[int]:
    """Indices of the symbols that Xen registers, in table order."""
    return (index for index, kind in enumerate(kinds) if kind >= Kind.OVERRIDING)


def _section_kind(section: elf.Section) -> Kind:
    return Kind.NEW if section.flags & elf.SHF_ALLOC else Kind.NOT_LOADED


def _region(section: elf.Section) -> int | None:
    """0 code, 1 writable, 2 read-only; None if ignored (livepatch_elf_ignore_section) or refused (writable code)."""
    if not section.flags & elf.SHF_ALLOC or section.size == 0:
        return None
    writable, code = section.flags & elf.SHF_WRITE, section.flags & elf.SHF_EXECINSTR
    if code:
        return None if writable else 0
    return 1 if writable else 2


def _page_align(size: int) -> int:
    return (size + PAGE_SIZE - 1) & -PAGE_SIZE
