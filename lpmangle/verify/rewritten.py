"""What happened to a payload after lpmangle, judged by names: for one that objcopy or strip has rewritten.

Such a tool renumbers symbols and sections, and drops what nothing refers to, so nothing can be compared by index, and
the original cannot be recovered. It is still known whether the renamed symbols are there, at their places in their
sections, and, with the original, which sections were added, removed or changed.
"""

from collections import defaultdict
from collections.abc import Iterator

from lpmangle import elf
from lpmangle.errors import LpmangleError, counted
from lpmangle.mangle import mark
from lpmangle.manifest.read import Manifest, ReferenceRecord, SymbolRecord
from lpmangle.xen.payload import Payload

# The most that are named of one kind; the number is always given.
MOST_NAMES = 20


def since(view: elf.Object, found: Manifest, original: elf.Object | None = None, named: bool = True) -> Iterator[str]:
    """The differences from the manifest and the original, one line each; the first line says how much is the same.

    Without `named`, only that line, and differences in names of functions.
    """
    present: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(_names(view)):
        present[name].append(index)
    gone, moved, differing = [], 0, []
    for entry in found.named:
        # Two symbols of one file may share a name.
        candidates = present[entry.name]
        same = [index for index in candidates if not _entry_differences(view, index, entry)]
        if not candidates:
            gone.append(f"{entry.name} is called {entry.original} again" if entry.original in present else entry.name)
        elif not same:
            differing += [f"{entry.name}: {words}" for words in _entry_differences(view, candidates[0], entry)]
        else:
            moved += entry.index not in same
    count = len(found.named)
    if found.references:
        there = counted(count, "symbol with a new name is", "symbols with new names are")
    else:
        there = counted(count, "renamed symbol is", "renamed symbols are")
    yield f"since then: {count - len(gone)} of {there} there, {moved} of them at another index"
    if named:
        yield from some_named("gone", gone)
        yield from some_named("changed", differing)
    yield from some_named("changed", list(function_differences(view, found)))
    if original:
        yield from _section_changes(original, view)


def is_unmangled(view: elf.Object, found: Manifest) -> bool:
    """Whether the payload has original names of the manifest, and none of the new ones."""
    if not found.named or mark.find(view):
        return False
    names = set(_names(view))
    return names.isdisjoint(entry.name for entry in found.named) and not names.isdisjoint(
        entry.original for entry in found.named
    )


def of_another_payload(view: elf.Object, found: Manifest) -> str:
    """That a manifest belongs to another payload, in words: another build-id, and none of the new names; else empty.

    find-debuginfo changes the build-id, too, but no names.
    """
    if not found.named:
        return ""
    try:
        build_id = Payload(view).build_id
    except LpmangleError:
        return ""
    if build_id is None or build_id.hex() == found.build_id:
        return ""
    if not {entry.name for entry in found.named}.isdisjoint(_names(view)) or is_unmangled(view, found):
        return ""
    there = f"{found.payload}, build-id {found.build_id or '(none)'}"
    return f"the manifest belongs to another payload: {there}; this payload has build-id {build_id.hex()}"


def differences(view: elf.Object, symbol: elf.Symbol, entry: SymbolRecord) -> list[str]:
    """What differs between a symbol and the manifest, except its name and index."""
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


def function_differences(view: elf.Object, found: Manifest) -> Iterator[str]:
    """Entries of .livepatch.funcs with other names than in the manifest. No tool changes the order of these entries."""
    if not found.functions:
        return
    try:
        names = {entry.entry: elf.text(entry.name) for entry in Payload(view).looked_up}
    except LpmangleError as error:
        yield error.message
        return
    for one in found.functions:
        if (name := names.get(one.entry)) != one.name:
            yield f".livepatch.funcs entry {one.entry}: name is {name}, the manifest says {one.name}"


def _entry_differences(view: elf.Object, index: int, entry: SymbolRecord | ReferenceRecord) -> list[str]:
    symbol = view.symbol(index)
    if isinstance(entry, SymbolRecord):
        return differences(view, symbol, entry)
    return [] if symbol.st_shndx == elf.SHN_UNDEF else ["is no longer undefined"]


def _names(view: elf.Object) -> Iterator[str]:
    return (elf.text(view.string(st_name)) for st_name, *_ in view.symbol_fields())


def _section_changes(before: elf.Object, after: elf.Object) -> Iterator[str]:
    old, new = _sections(before), _sections(after)
    yield from some_named("section gone", [name for name in old if name not in new])
    yield from some_named("section added", [name for name in new if name not in old])
    # Relocations and tables contain indices; what Xen loads does not.
    loaded = {section.name for section in after.sections if section.flags & elf.SHF_ALLOC}
    yield from some_named(
        "section changed", [name for name in new if name in loaded & old.keys() and new[name] != old[name]]
    )


def _sections(view: elf.Object) -> dict[str, list[bytes]]:
    """Name -> the contents of all sections of that name, in order."""
    sections: dict[str, list[bytes]] = defaultdict(list)
    for section in view.sections[1:]:
        sections[section.name].append(bytes(view.section_data(section)))
    return dict(sections)


def some_named(what: str, names: list[str]) -> Iterator[str]:
    for name in names[:MOST_NAMES]:
        yield f"{what}: {name}"
    if len(names) > MOST_NAMES:
        yield f"{what}: {len(names) - MOST_NAMES} more"
