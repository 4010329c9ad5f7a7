"""What Xen's livepatch loader makes of a payload, told from the file alone.

Each rule names the function of Xen that it follows (xen/common/livepatch.c where no other file is named). What differs
between the supported versions of Xen must not matter to a build: what is said here holds for all of them.
"""

from functools import cached_property
from typing import NamedTuple

from lpmangle import elf
from lpmangle.errors import PayloadError
from lpmangle.xen.abi import (
    ABSOLUTE_RELOCATION,
    BUILD_ID_SECTION,
    DEPENDS_SECTION,
    FUNCS_SECTION,
    MAX_SECTIONS,
    XEN_DEPENDS_SECTION,
)
from lpmangle.xen.notes import parse_build_id
from lpmangle.xen.placement import place
from lpmangle.xen.symbols import UNUSUAL, Kind, SymbolRules


class Place(NamedTuple):
    """A place in a payload: a section, by number, and a byte offset into it; in section 0 an absolute address."""

    section: int
    offset: int


class FunctionEntry(NamedTuple):
    """One entry of .livepatch.funcs (struct livepatch_func, xen/include/public/sysctl.h)."""

    start: int  # offset in the section
    version: int
    replacement: Place | None  # new_addr; None where it is not in the payload


class Payload:
    """A relocatable ELF file seen with the loader's eyes. Properties raise PayloadError where Xen would refuse."""

    def __init__(self, view: elf.Object) -> None:
        self.elf = view

    @classmethod
    def parse(cls, data: bytes) -> "Payload":
        """The payload whose file is `data`. Raises ElfError, PayloadError."""
        view = elf.parse(data)
        if len(view.sections) > MAX_SECTIONS:
            raise PayloadError(
                f"has {len(view.sections)} sections; Xen refuses a payload with {MAX_SECTIONS + 1} or more",
                hint="split the patch into several payloads",
            )
        return cls(view)

    @cached_property
    def functions(self) -> list[FunctionEntry]:
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
        replacements = self._replacements(section, entry, pointer)
        functions = []
        for start in range(0, section.size, entry):
            if data[start + version_at] != version:
                raise PayloadError(f"{FUNCS_SECTION}: payload versions {version} and {data[start + version_at]} mixed")
            functions.append(FunctionEntry(start, version, replacements.get(start)))
        return functions

    def _replacements(self, section: elf.Section, entry: int, pointer: int) -> dict[int, Place | None]:
        """Offset of an entry of .livepatch.funcs -> its new_addr after relocation."""
        found: dict[int, Place | None] = {}
        view = self.elf
        absolute, mask = ABSOLUTE_RELOCATION[view.machine], (1 << 8 * pointer) - 1
        for relocation in view.relocations(section):
            start = relocation.r_offset - pointer
            if start % entry or not 0 <= start < section.size or relocation.r_type != absolute:
                continue
            addend = relocation.r_addend
            if addend is None:
                (addend,) = view.layout.address.unpack_from(view.data, section.offset + relocation.r_offset)
            symbol = view.symbol(relocation.r_sym)
            number = 0 if symbol.st_shndx == elf.SHN_ABS else symbol.st_shndx or len(view.sections)
            known = number < len(view.sections)
            found[start] = Place(number, (symbol.st_value + addend) & mask) if known else None
        return found

    @cached_property
    def kinds(self) -> bytes:
        """One Kind per symbol, in table order.

        A symbol overrides if it is at the replacement itself: the same section, the same offset. Where the sections
        come to lie next to each other, the loader counts one at the end of the section before as overriding, too; but
        whether they do, differs between versions of Xen (`coincidences`), so such a symbol is NEW here.
        """
        view = self.elf
        overridden: dict[int, set[int]] = {}
        for function in self.functions:
            # In an empty section nothing has an address under versions that do not place it.
            if function.replacement and view.sections[function.replacement.section].size:
                overridden.setdefault(function.replacement.section, set()).add(function.replacement.offset)
        rules = SymbolRules([section.flags for section in view.sections], view.machine)
        by_section, count = rules.by_section, len(view.sections)
        data, names = view.data, view.strtab.offset
        kinds = bytearray()
        for st_name, _, _, st_shndx, st_value, _ in view.symbol_fields():
            if st_shndx < count:
                kind = by_section[st_shndx]
                if kind == Kind.NEW:
                    if data[names + st_name] in UNUSUAL:
                        kind = rules.kind(st_shndx, view.string(st_name))
                    if st_shndx in overridden and kind == Kind.NEW and st_value in overridden[st_shndx]:
                        kind = Kind.OVERRIDING
            else:
                kind = rules.kind(st_shndx, b"")
            kinds.append(kind)
        kinds[0] = Kind.NULL
        return bytes(kinds)

    @cached_property
    def coincidences(self) -> tuple[frozenset[int], frozenset[int]]:
        """Indices of the NEW symbols that Xen counts as overriding since they come to lie at a replacement.

        First under the versions that do not place empty sections, then under those that do.
        """
        mask = (1 << 8 * self.elf.layout.address.size) - 1
        replacements = [function.replacement for function in self.functions if function.replacement]
        found = []
        for empty_sections_placed in (False, True):
            bases = place(self.elf.sections, mask, empty_sections_placed=empty_sections_placed).offsets

            def address(section: int, offset: int, bases: list[int | None] = bases) -> tuple[bool, int]:
                """Whether it is in the payload's memory, and where; where a section is not, the offset alone counts."""
                base = bases[section]
                return base is not None, (base or 0) + offset & mask

            # A replacement at address 0 is none.
            at = {address(*replacement) for replacement in replacements} - {(False, 0)}
            symbols = enumerate(zip(self.kinds, self.elf.symbol_fields(), strict=True)) if at else ()
            found.append(
                frozenset(
                    index
                    for index, (kind, (_, _, _, shndx, value, _)) in symbols
                    if kind == Kind.NEW and address(shndx, value) in at
                )
            )
        return found[0], found[1]

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
        section = self.elf.section_named(name)
        if section is None:
            return None
        content = bytes(self.elf.section_data(section))
        error, build_id = parse_build_id(content, len(content), self.elf.layout.word)
        if error or not build_id:
            raise PayloadError(f"{name}: not a GNU build-id note")
        return build_id
