"""What happened to a payload after lpmangle: for one that objcopy or strip has written anew, told by names.

Such a tool numbers symbols and sections as it likes, and drops what nothing refers to, so nothing can be compared by
index, and the original cannot be had back. What still can be told is whether the renamed symbols are there, where they
were in their sections, and, with the original at hand, which sections came, went or differ.
"""

from collections import defaultdict
from collections.abc import Iterator

from lpmangle import elf
from lpmangle.manifest.read import Manifest, Symbol

# So many are named of one kind; the number is said always.
MOST_NAMES = 20


def since(view: elf.Object, found: Manifest, original: bytes | None = None) -> Iterator[str]:
    """What is different, a line for each, by the manifest and the original; the first line says how much is not."""
    present: dict[str, list[int]] = defaultdict(list)
    for index, (st_name, *_) in enumerate(view.symbol_fields()):
        present[elf.text(view.string(st_name))].append(index)
    gone, moved, differing = [], 0, []
    for entry in found.symbols:
        # Two symbols of one file may share a name.
        candidates = present[entry.name]
        same = [index for index in candidates if not _differences(view, index, entry)]
        if not candidates:
            gone.append(f"{entry.name} is called {entry.original} again" if entry.original in present else entry.name)
        elif not same:
            differing += [f"{entry.name}: {words}" for words in _differences(view, candidates[0], entry)]
        else:
            moved += entry.index not in same
    there = len(found.symbols) - len(gone)
    yield f"since then: {there} of {len(found.symbols)} renamed symbols are there, {moved} of them at another index"
    yield from _named("gone", gone)
    yield from _named("changed", differing)
    if original is not None:
        yield from _section_changes(elf.parse(original), view)


def _differences(view: elf.Object, index: int, entry: Symbol) -> list[str]:
    symbol = view.symbol(index)
    section = view.sections[symbol.st_shndx].name if symbol.st_shndx < len(view.sections) else ""
    return [
        f"{what} is {is_now}, the manifest says {was}"
        for what, is_now, was in (
            ("section", section, entry.section),
            ("value", symbol.st_value, entry.value),
            ("size", symbol.st_size, entry.size),
            ("type", elf.STT_NAMES.get(symbol.type, str(symbol.type)), entry.type),
            ("binding", elf.STB_NAMES.get(symbol.binding, str(symbol.binding)), entry.binding),
        )
        if is_now != was
    ]


def _section_changes(before: elf.Object, after: elf.Object) -> Iterator[str]:
    old, new = _sections(before), _sections(after)
    yield from _named("section gone", [name for name in old if name not in new])
    yield from _named("section added", [name for name in new if name not in old])
    # Relocations and tables hold indices; what Xen loads does not.
    loaded = {section.name for section in after.sections if section.flags & elf.SHF_ALLOC}
    yield from _named(
        "section changed", [name for name in new if name in loaded & old.keys() and new[name] != old[name]]
    )


def _sections(view: elf.Object) -> dict[str, list[bytes]]:
    """Name -> the contents of all sections of that name, in order."""
    sections: dict[str, list[bytes]] = defaultdict(list)
    for section in view.sections[1:]:
        sections[section.name].append(bytes(view.section_data(section)))
    return dict(sections)


def _named(what: str, names: list[str]) -> Iterator[str]:
    for name in names[:MOST_NAMES]:
        yield f"{what}: {name}"
    if len(names) > MOST_NAMES:
        yield f"{what}: {len(names) - MOST_NAMES} more"
