"""Sections and symbols told by what they are, not by their numbers: for files that another tool has laid out anew."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from lpmangle.elf.view import SHN_ABS, SHN_UNDEF, SHT_REL, SHT_RELA, STB_GLOBAL, STB_LOCAL, Object, Section, text


class SectionId(NamedTuple):
    """A section's name and type; of several the first is number 0."""

    name: str
    type: int
    which: int


class SymbolId(NamedTuple):
    """All that a symbol is. `section` is a special index where it is in none.

    An undefined symbol is found by its name, whatever its binding: GNU objcopy makes a LOCAL one GLOBAL, and so it
    counts as that.
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
    """Of each section, by its number."""
    count: Counter[tuple[str, int]] = Counter()
    ids = []
    for section in view.sections:
        key = section.name, section.type
        ids.append(SectionId(*key, count[key]))
        count[key] += 1
    return ids


def symbol_ids(view: Object, names: Mapping[int, bytes] | None = None) -> list[SymbolId]:
    """Of each symbol, by its index; some with other names than in the file."""
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
    """For each symbol of `after` the index of the one in `before` that it is; None for one that was not there.

    Symbols that are the same in everything are one as good as the other, and matched in their order.
    """
    if before == after:
        return list(range(len(after)))
    free: dict[SymbolId, deque[int]] = defaultdict(deque)
    for index, symbol in enumerate(before):
        free[symbol].append(index)
    return [free[symbol].popleft() if free[symbol] else None for symbol in after]


def renumbered(view: Object, section: Section, number: Callable[[int], int]) -> bytes:
    """A relocation section's content with other numbers for the symbols."""
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
