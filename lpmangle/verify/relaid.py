"""What differs between a file and the same file as another tool has rewritten it, such as objcopy for a signature.

The meaning of the files is compared: every section that is not a table of names or symbols, by name, type, flags,
alignment and content; every symbol by name, section, value, size, type, binding and visibility; every relocation by
place, type, addend and symbol, not by the symbol's number. The order of loaded sections and of equal names counts,
because Xen places sections in that order and finds the first of equal names. A section with a signature does not count.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from lpmangle import elf
from lpmangle.elf.identity import SectionId, SymbolId, matched, renumbered, section_ids, symbol_ids
from lpmangle.errors import counted
from lpmangle.manifest import embed
from lpmangle.verify.rewritten import some_named
from lpmangle.xen.abi import BUILD_ID_SECTION, SIGNATURE_SECTION

_E_FIELDS = ("e_type", "e_machine", "e_version", "e_entry", "e_phoff", "", "e_flags", "e_ehsize", "", "e_phnum")
# `verify` checks these separately.
_ELSEWHERE = (SIGNATURE_SECTION, embed.SECTION)


def differences(before: elf.Object, after: elf.Object) -> Iterator[str]:
    """One line for each difference; none if only a signature was added."""
    yield from _headers(before, after)
    yield from _tables(before, after)
    old, new = _sections(before), _sections(after)
    yield from some_named("section gone", [one.name for one in old if one not in new])
    yield from some_named("section added", [one.name for one in new if one not in old])
    both = [one for one in old if one in new]
    loaded = {one: None for one in both if old[one].flags & elf.SHF_ALLOC}
    if list(loaded) != [one for one in new if one in loaded]:
        yield "sections that Xen loads are in another order"
    symbols = _Symbols(before, after)
    yield from symbols.differences()
    ids = section_ids(before), section_ids(after)
    for one in both:
        yield from some_named(f"section changed: {one.name}", list(_section(before, old[one], after, new[one], ids)))
        if one.type in (elf.SHT_REL, elf.SHT_RELA):
            yield from some_named("relocation changed", list(symbols.relocations(old[one], new[one])))
        elif one.type == elf.SHT_GROUP:
            if _group(before, old[one], ids[0]) != _group(after, new[one], ids[1]):
                yield f"section changed: {one.name}: it has other members"
        elif one.name != BUILD_ID_SECTION:  # which `verify` compares with the manifest
            yield from _content(before, old[one], after, new[one])


def _headers(before: elf.Object, after: elf.Object) -> Iterator[str]:
    if before.data[:16] != after.data[:16]:
        yield "the first bytes of the ELF header (e_ident) differ"
    was, is_now = (view.layout.ehdr.unpack_from(view.data, 16) for view in (before, after))
    for field, old, new in zip(_E_FIELDS, was, is_now, strict=False):
        if field and old != new:
            yield f"the ELF header's {field} is {new:#x}, it was {old:#x}"


def _tables(before: elf.Object, after: elf.Object) -> Iterator[str]:
    """Tables of names and symbols: their names and fields other than places. Section names may get their own table."""
    for table in ("symtab", "strtab", "section_names"):
        old, new = getattr(before, table), getattr(after, table)
        names = (old.name, ".shstrtab") if table == "section_names" else (old.name,)
        if new.name not in names:
            yield f"section changed: {old.name} is called {new.name}"
        elif (old.flags, old.entsize) != (new.flags, new.entsize):
            yield f"section changed: {old.name}: sh_flags or sh_entsize differs"


def _sections(view: elf.Object) -> dict[SectionId, elf.Section]:
    """All sections to compare, in order."""
    tables = (view.symtab.number, view.strtab.number, view.section_names.number)
    return {
        one: view.sections[number]
        for number, one in enumerate(section_ids(view))
        if number and number not in tables and one.name not in _ELSEWHERE
    }


def _section(
    before: elf.Object,
    old: elf.Section,
    after: elf.Object,
    new: elf.Section,
    ids: tuple[Sequence[SectionId], Sequence[SectionId]],
) -> Iterator[str]:
    """Meaningful differences in the header; sh_link and sh_info are compared by section (`ids`), not by number."""
    # GNU objcopy sets SHF_INFO_LINK on relocations, where it belongs: sh_info is a section's number.
    apart = elf.SHF_INFO_LINK if old.type in (elf.SHT_REL, elf.SHT_RELA) else 0
    for field, was, is_now in (
        ("flags", old.flags & ~apart, new.flags & ~apart),
        ("addralign", old.addralign, new.addralign),
        ("entsize", old.entsize, new.entsize),
    ):
        if was != is_now:
            yield f"sh_{field} is {is_now:#x}, it was {was:#x}"
    was, is_now = before.section_address(old), after.section_address(new)
    if was != is_now:
        yield f"sh_addr is {is_now:#x}, it was {was:#x}"
    pairs = [("sh_link", old.link, new.link)] if old.type != elf.SHT_LLVM_ADDRSIG else []  # whose objcopy drops
    if old.type in (elf.SHT_REL, elf.SHT_RELA):
        pairs.append(("sh_info", old.info, new.info))
    elif old.info != new.info and old.type != elf.SHT_GROUP:
        yield f"sh_info is {new.info:#x}, it was {old.info:#x}"
    for field, one, other in pairs:
        if _role(before, ids[0], one) != _role(after, ids[1], other):
            yield f"{field} is {after.sections[other]}, it was {before.sections[one]}"


def _role(view: elf.Object, ids: Sequence[SectionId], number: int) -> object:
    """The section that a number in another section's header means; the symbol table may have any name."""
    return "symbols" if number == view.symtab.number else ids[number]


def _content(before: elf.Object, old: elf.Section, after: elf.Object, new: elf.Section) -> Iterator[str]:
    if old.size != new.size:
        yield f"section changed: {old.name}: has {counted(new.size, 'byte')}, it had {old.size}"
        return
    was, is_now = before.section_data(old), after.section_data(new)
    if was != is_now:
        at = next(at for at, (one, other) in enumerate(zip(was, is_now, strict=True)) if one != other)
        count = sum(one != other for one, other in zip(was, is_now, strict=True))
        what = counted(count, "byte differs", "bytes differ")
        yield f"section changed: {old.name}: {what}, the first at {old.name}+{at:#x}"


def _group(view: elf.Object, section: elf.Section, ids: Sequence[SectionId]) -> tuple[object, ...]:
    """The flags of a section group, its members and its signature (gABI, "Section Groups").

    Without GRP_COMDAT: only a linker uses it, and llvm-objcopy 14 removes it.
    """
    symbol = view.symbol(section.info)
    content = bytes(view.section_data(section))
    words = [one for (one,) in view.layout.word.iter_unpack(content[: len(content) // 4 * 4])]
    members = [ids[number] if number < len(ids) else number for number in words[1:]]
    return (
        [flags & ~elf.GRP_COMDAT for flags in words[:1]],
        members,
        content[len(words) * 4 :],
        view.string(symbol.st_name),
    )


class _Symbols:
    """The symbols of both files, each of the second matched with the same one of the first."""

    def __init__(self, before: elf.Object, after: elf.Object) -> None:
        self._before, self._after = before, after
        self._old, self._new = symbol_ids(before), symbol_ids(after)
        self._matched = matched(self._old, self._new)
        self._same = self._matched == list(range(len(self._old)))

    def differences(self) -> Iterator[str]:
        if self._same:
            return
        there = {index for index in self._matched if index is not None}
        gone = [symbol for index, symbol in enumerate(self._old) if index not in there]
        came = [symbol for symbol, index in zip(self._new, self._matched, strict=True) if index is None]
        # A new symbol with the name of a missing one is that symbol, changed.
        changed, others = [], defaultdict[bytes, list[SymbolId]](list)
        for symbol in came:
            others[symbol.name].append(symbol)
        lost = []
        for symbol in gone:
            if symbol.name and others[symbol.name]:
                changed += [f"{elf.text(symbol.name)}: {w}" for w in _unlike(symbol, others[symbol.name].pop(0))]
            else:
                lost.append(symbol)
        yield from some_named("symbol gone", [str(symbol) for symbol in lost])
        yield from some_named("symbol added", [str(symbol) for several in others.values() for symbol in several])
        yield from some_named("symbol changed", changed)
        yield from some_named("symbols of one name are in another order", self._reordered())

    def _reordered(self) -> list[str]:
        """Names of several symbols whose order has changed, and matters."""
        several = {name for name, count in Counter(one.name for one in {*self._old}).items() if count > 1 and name}
        old, new = _orders(self._old, several), _orders(self._new, several)
        return [
            elf.text(name)
            for name in sorted(several)
            if old[name] != new[name] and Counter(old[name]) == Counter(new[name])
        ]

    def relocations(self, old: elf.Section, new: elf.Section) -> Iterator[str]:
        """Each relocation that has changed, described by its place."""
        is_now = bytes(self._after.section_data(new))
        if self._same and is_now == self._before.section_data(old):
            return
        if not self._same:
            is_now = renumbered(self._after, new, self._number)
        was = bytes(self._before.section_data(old))
        layout = self._before.layout
        entry = layout.rela if old.type == elf.SHT_RELA else layout.rel
        if is_now == was:
            return
        if len(was) != len(is_now) or old.entsize != new.entsize or old.entsize != entry.size or len(was) % entry.size:
            count = len(is_now) // entry.size, len(was) // entry.size
            yield f"{old.name} has {counted(count[0], 'entry', 'entries')}, it had {count[1]}"
            return
        target = self._before.sections[old.info].name
        pairs = zip(entry.iter_unpack(was), entry.iter_unpack(bytes(self._after.section_data(new))), strict=True)
        for at, (first, second) in enumerate(pairs):
            if was[at * entry.size : (at + 1) * entry.size] == is_now[at * entry.size : (at + 1) * entry.size]:
                continue
            old_words, new_words = self._words(first, self._old), self._words(second, self._new)
            moved = "" if first[0] == second[0] else f", at {target}+{second[0]:#x}"
            yield f"{target}+{first[0]:#x} means {new_words}{moved}; it meant {old_words}"

    def _words(self, fields: Sequence[int], symbols: Sequence[SymbolId]) -> str:
        """A relocation's symbol, addend and type."""
        shift, mask = self._before.layout.r_sym_shift, self._before.layout.r_type_mask
        _, info, *addend = fields
        number = info >> shift
        symbol = str(symbols[number]) if number < len(symbols) else f"symbol {number}"
        plus = f" {'-' if addend[0] < 0 else '+'} {abs(addend[0]):#x}" if addend and addend[0] else ""
        return f"{symbol}{plus}, type {info & mask}"

    def _number(self, index: int) -> int:
        """The number in the first file of a symbol of the second; an unused number if it was not there."""
        found = self._matched[index] if index < len(self._matched) else None
        return (1 << 24) - 1 if found is None else found


def _orders(ids: Sequence[SymbolId], names: set[bytes]) -> dict[bytes, list[SymbolId]]:
    found = defaultdict[bytes, list[SymbolId]](list)
    for one in ids:
        if one.name in names:
            found[one.name].append(one)
    return found


def _unlike(old: SymbolId, new: SymbolId) -> Iterator[str]:
    if old.section != new.section:
        yield f"is in {new.place}, it was in {old.place}"
    for field in ("value", "size", "type", "binding", "other"):
        if (was := getattr(old, field)) != (is_now := getattr(new, field)):
            names = {"type": elf.STT_NAMES, "binding": elf.STB_NAMES}.get(field, {})
            yield f"{field} is {names.get(is_now, is_now)}, it was {names.get(was, was)}"
