"""How Xen's livepatch loader sees a payload, judging from the file alone.

Each rule names the function of Xen that it follows (in xen/common/livepatch.c, if no other file is named). Differences
between the supported versions of Xen must not matter to a build: everything here holds for all of them.
"""

from lpmangle import elf
from lpmangle.elf.other import linux_module
from lpmangle.errors import PayloadError, counted
from lpmangle.system.light import cached_property
from lpmangle.system.records import TYPE_CHECKING, NamedTuple
from lpmangle.xen.abi import (
    ABSOLUTE_RELOCATION,
    BUILD_ID_SECTION,
    DEPENDS_SECTION,
    FUNCS_SECTION,
    MAX_NAME,
    MAX_SECTIONS,
    XEN_DEPENDS_SECTION,
    func_size,
    func_version_at,
)
from lpmangle.xen.notes import parse_build_id
from lpmangle.xen.placement import place
from lpmangle.xen.symbols import UNUSUAL, USUAL, Kind, SymbolRules

if TYPE_CHECKING:
    from lpmangle.xen.function_names import FunctionName


# GCC aligns large variables more than their type asks for.
FUNCS_PADDED = "the compiler put padding between the entries: declare each with __attribute__((aligned(8)))"


class Location(NamedTuple):
    """A place in a payload: a section, by number, and a byte offset into it; in section 0 an absolute address."""

    section: int
    offset: int


class FunctionEntry(NamedTuple):
    """One entry of .livepatch.funcs (struct livepatch_func, xen/include/public/sysctl.h)."""

    start: int  # offset in the section
    version: int
    replacement: Location | None  # new_addr; None if it is not in the payload


class Payload:
    """A relocatable ELF file as the loader sees it. Properties raise PayloadError if Xen would refuse it."""

    def __init__(self, view: elf.Object) -> None:
        self.elf = view

    @classmethod
    def parse(cls, data: bytes) -> "Payload":
        """The payload whose file is `data`. Raises ElfError, PayloadError."""
        view = elf.parse(data)
        if what := linux_module(view):
            raise PayloadError(what)
        if len(view.sections) > MAX_SECTIONS:
            raise PayloadError(
                f"has {len(view.sections)} sections; Xen refuses a payload with {MAX_SECTIONS + 1} or more",
                hint="split the patch into several payloads",
            )
        return cls(view)

    @cached_property
    def functions(self) -> list[FunctionEntry]:
        """The entries of .livepatch.funcs, in order; none if the section is missing (hooks only)."""
        self._check_relocations()
        section = self.elf.section_named(FUNCS_SECTION)
        if section is None or section.size == 0:
            return []
        pointer = self.elf.layout.address.size
        version_at = func_version_at(pointer)
        data = self.elf.section_data(section)
        if len(data) <= version_at:
            raise PayloadError(
                f"{FUNCS_SECTION}: {counted(section.size, 'byte is', 'bytes are')} too few for one entry"
            )
        version = data[version_at]
        if version not in (1, 2):
            raise PayloadError(f"{FUNCS_SECTION}: payload version {version}; Xen knows 1 and 2")
        entry = func_size(pointer, version)
        if section.size % entry:
            raise PayloadError(
                f"{FUNCS_SECTION}: {section.size} bytes are not a multiple of {entry} (version {version})",
                hint=FUNCS_PADDED if section.size > entry else "",
            )
        if self.elf.machine not in ABSOLUTE_RELOCATION:
            raise PayloadError(
                f"is for machine {self.elf.machine}; Xen supports livepatches for x86_64, aarch64 and arm"
            )
        replacements = self._replacements(section, entry, pointer)
        functions = []
        for start in range(0, section.size, entry):
            if data[start + version_at] != version:
                raise PayloadError(f"{FUNCS_SECTION}: payload versions {version} and {data[start + version_at]} mixed")
            functions.append(FunctionEntry(start, version, replacements.get(start)))
        return functions

    @cached_property
    def looked_up(self) -> "list[FunctionName]":
        """The names of the functions to replace that Xen looks up by name, as far as they are known."""
        from lpmangle.xen.function_names import looked_up  # few payloads are stacked

        section = self.elf.section_named(FUNCS_SECTION)
        if not self.functions or section is None:
            return []
        return looked_up(self.elf, section, [function.start for function in self.functions])

    def _check_relocations(self) -> None:
        """livepatch_elf.c:livepatch_elf_perform_relocs skips sections of other types than SHT_RELA and SHT_REL."""
        for section in self.elf.sections:
            if name := elf.COMPACT_RELOCATIONS.get(section.type):
                raise PayloadError(
                    f"{section} has relocations of type {name}, which Xen ignores",
                    hint="compile without them: for SHT_CREL without -Wa,--crel, and with GNU as or clang's default",
                )

    def _replacements(self, section: elf.Section, entry: int, pointer: int) -> dict[int, Location | None]:
        """Offset of an entry of .livepatch.funcs -> its new_addr after relocation."""
        found: dict[int, Location | None] = {}
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
            found[start] = Location(number, (symbol.st_value + addend) & mask) if known else None
        return found

    @property
    def kinds(self) -> bytes:
        """One Kind per symbol, in table order.

        A symbol overrides if it is exactly at a replacement: same section, same offset. If two sections are loaded next
        to each other, the loader also counts a symbol at the end of the first one as overriding; but that differs
        between versions of Xen (`coincidences`), so such a symbol is NEW here.
        """
        return self._symbols[0]

    @property
    def coincidences(self) -> tuple[frozenset[int], frozenset[int]]:
        """Indices of the NEW symbols that Xen counts as overriding, because they happen to be at a replacement's
        address.

        First for the versions that do not place empty sections, then for those that do.
        """
        return self._symbols[1]

    @cached_property
    def unsure_names(self) -> frozenset[bytes]:
        """The names, as Xen keeps them, of symbols that are new only under some versions: not always found."""
        unsure = self.coincidences[0] | self.coincidences[1]
        if not unsure:
            return frozenset()
        names: list[set[bytes]] = [set(), set()]
        for index, kind in enumerate(self.kinds):
            if kind == Kind.NEW:
                names[index in unsure].add(self.elf.symbol_name(index))
        return frozenset(name[:MAX_NAME] for name in names[True] - names[False])

    @cached_property
    def _symbols(self) -> tuple[bytes, tuple[frozenset[int], frozenset[int]]]:
        view, mask = self.elf, (1 << 8 * self.elf.layout.address.size) - 1
        replacements = [function.replacement for function in self.functions if function.replacement]
        overridden: dict[int, set[int]] = {}
        for section, offset in replacements:
            # In versions that do not place empty sections, nothing in one has an address.
            if view.sections[section].size:
                overridden.setdefault(section, set()).add(offset)
        layouts = []
        for empty_sections_placed in (False, True):
            bases = place(view.sections, mask, empty_sections_placed=empty_sections_placed).offsets
            # 0 is not a replacement, but means that code is deleted.
            at = {_address(bases, section, offset, mask) for section, offset in replacements} - {
                _address([None], 0, 0, 0)
            }
            layouts.append((bases, at, set[int]()))
        rules = SymbolRules([section.flags for section in view.sections], view.machine)
        st_names, st_shndx = view.symbol_column("st_name"), view.symbol_column("st_shndx")
        # Nearly all symbols are what their section says.
        usual = {number: rules.kind(number, USUAL) for number in set(st_shndx)}
        kinds = bytearray(map(usual.__getitem__, st_shndx))
        new, strings = Kind.NEW, bytes(view.section_data(view.strtab))
        for index, st_name in enumerate(st_names):
            if strings[st_name] in UNUSUAL and kinds[index] == new:
                kinds[index] = rules.kind(st_shndx[index], view.string(st_name))
        if replacements:
            st_value = view.symbol_column("st_value")
            for index in [index for index, kind in enumerate(kinds) if kind == new]:
                section, offset = st_shndx[index], st_value[index]
                if offset in overridden.get(section, ()):
                    kinds[index] = Kind.OVERRIDING
                    continue
                for bases, at, found in layouts:
                    if _address(bases, section, offset, mask) in at:
                        found.add(index)
        kinds[0] = Kind.NULL
        first, second = (frozenset(found) for _, _, found in layouts)
        return bytes(kinds), (first, second)

    @property
    def build_id(self) -> bytes | None:
        return self._note(BUILD_ID_SECTION)

    @property
    def depends(self) -> bytes | None:
        """Build-id of what the payload must be applied on: the hypervisor or the previous payload."""
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


def _address(bases: list[int | None], section: int, offset: int, mask: int) -> int:
    """The address of a place in the payload's memory; negative if its section is not loaded."""
    base = bases[section]
    return ~offset if base is None else base + offset & mask
