"""Sections and symbols identified by what they are, not by number: for files that another tool has rewritten."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from lpmangle.elf.view import SHN_ABS, SHN_UNDEF, SHT_REL, SHT_RELA, STB_GLOBAL, STB_LOCAL, Object, Section, text


class SectionId(NamedTuple):
    """A section's name and type; `which` counts equal ones from 0."""

    name: str
    type: int
    which: int


class SymbolId(NamedTuple):
    """Everything about a symbol. `section` is a special index if it is in no section.

    The binding of an undefined symbol does not matter, because it is found by name: GNU objcopy makes LOCAL ones
    GLOBAL, so it counts as GLOBAL.
    """

    name: bytes
    section: SectionId | int
    value: int
    size: int
    type: int
    binding: int
    other: int

    @property
    def place(self) -> str:
        if isinstance(self.section, int):
            return {SHN_UNDEF: "undefined", SHN_ABS: "absolute"}.get(self.section, f"section index {self.section:#x}")
        return f"{self.section.name}+{self.value:#x}" if self.value or self.name else self.section.name

    def __str__(self) -> str:
        return f"{text(self.name)} ({self.place})" if self.name else self.place


def section_ids(view: Object) -> list[SectionId]:
    """The id of each section, by number."""
    count: Counter[tuple[str, int]] = Counter()
    ids = []
    for section in view.sections:
        key = section.name, section.type
        ids.append(SectionId(*key, count[key]))
        count[key] += 1
    return ids


def symbol_ids(view: Object, names: Mapping[int, bytes] | None = None) -> list[SymbolId]:
    """The id of each symbol, by index; `names` replaces the names of some."""
    sections: list[SectionId | int] = [*section_ids(view)]
    sections[SHN_UNDEF] = SHN_UNDEF
    ids, others = [], names or {}
    for index, (st_name, info, other, shndx, value, size) in enumerate(view.symbol_fields()):
        name = others.get(index) if index in others else view.string(st_name)
        binding = info >> 4
        if shndx == SHN_UNDEF and binding == STB_LOCAL and index:
            binding = STB_GLOBAL
        section = sections[shndx] if shndx < len(sections) else shndx
        ids.append(SymbolId(name or b"", section, value, size, info & 15, binding, other))
    return ids


def matched(before: Sequence[SymbolId], after: Sequence[SymbolId]) -> list[int | None]:
    """For each symbol of `after` the index of the same symbol in `before`; None if it was not there.

    Symbols that are equal in everything are matched in their order.
    """
    if before == after:
        return list(range(len(after)))
    free: dict[SymbolId, deque[int]] = defaultdict(deque)
    for index, symbol in enumerate(before):
        free[symbol].append(index)
    return [free[symbol].popleft() if free[symbol] else None for symbol in after]


def renumbered(view: Object, section: Section, number: Callable[[int], int]) -> bytes:
    """A relocation section's content with new symbol numbers."""
    layout = view.layout
    entry = layout.rela if section.type == SHT_RELA else layout.rel
    content = bytes(view.section_data(section))
    if section.type not in (SHT_REL, SHT_RELA) or section.entsize != entry.size or len(content) % entry.size:
        return content
    shift, mask = layout.r_sym_shift, layout.r_type_mask
    return b"".join(
        entry.pack(offset, number(info >> shift) << shift | info & mask, *addend)
        for offset, info, *addend in entry.iter_unpack(content)
    )
