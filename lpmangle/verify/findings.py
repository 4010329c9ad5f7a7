"""Does a payload agree with its manifest, and does nothing but names differ? Checked twice.

First by our own reading: digests, every renamed symbol, the way back to the original and the proof between the two.
Then by LIEF, which shares no code with us: all fields of all symbols but the names, all section headers but the string
table's place. LIEF is fed only bytes that our strict reader has taken, reads nothing but sections and symbols, and
never writes.
"""

import warnings
from collections.abc import Iterator
from typing import Any

from lpmangle import elf
from lpmangle.errors import ElfError, LpmangleError
from lpmangle.mangle import mark
from lpmangle.manifest.read import Manifest
from lpmangle.manifest.undo import prove_manifest, undo
from lpmangle.system.files import sha256
from lpmangle.verify import rewritten as changes
from lpmangle.xen.payload import Payload

CHANGED_SINCE = "the payload was changed after lpmangle wrote it (objcopy, strip, a signature), or is another one"


def findings(view: elf.Object, found: Manifest, original: bytes | None = None) -> Iterator[str]:
    """One line for each disagreement; none if all is well. `original` is the file it was made from, if at hand."""
    digest_now = sha256(view.data)
    if digest_now != found.output.sha256:
        if digest_now == found.input.sha256:
            yield "is the original: it is not mangled"
        else:
            yield f"sha256 is {digest_now}, the manifest says {found.output.sha256}: {CHANGED_SINCE}"
    if original is not None and (digest := sha256(original)) != found.input.sha256:
        yield f"the original's sha256 is {digest}, the manifest says {found.input.sha256}"

    yield from _note_findings(view, found)
    if digest_now not in (found.input.sha256, found.output.sha256) and found.symbols and mark.find(view) is None:
        # Nothing refers to the mark: whoever writes the string table anew drops it, and our indices with it.
        yield from changes.since(view, found, original)
        return
    yield from _symbol_findings(view, found)

    restored = None
    try:
        restored = undo(view, found)
    except LpmangleError as error:
        yield error.message
    before = restored if original is None else original
    if before is None:
        return
    if before != restored:  # what `undo` gives is proven
        try:
            prove_manifest(elf.parse(before), view.data, found)
        except LpmangleError as error:
            yield error.message.removeprefix("proof failed, nothing was written: ")
            if isinstance(error, ElfError):
                return
    yield from lief_findings(before, view.data, found)


def _note_findings(view: elf.Object, found: Manifest) -> Iterator[str]:
    payload = Payload(view)
    machine = elf.EM_NAMES.get(view.machine, str(view.machine))
    if machine != found.machine:
        yield f"machine is {machine}, the manifest says {found.machine}"
    try:
        for what, note, said in (
            ("build-id", payload.build_id, found.build_id),
            ("depends", payload.depends, found.depends),
            ("xen-depends", payload.xen_depends, found.xen_depends),
        ):
            if (note and note.hex()) != said:
                yield f"{what} is {note and note.hex()}, the manifest says {said}"
    except LpmangleError as error:
        yield error.message


def _symbol_findings(view: elf.Object, found: Manifest) -> Iterator[str]:
    for entry in found.symbols:
        if entry.index >= view.symbol_count:
            yield f"symbol {entry.index} ({entry.name}) does not exist"
            continue
        symbol = view.symbol(entry.index)
        section = view.sections[symbol.st_shndx].name if symbol.st_shndx < len(view.sections) else ""
        for what, is_now, was in (
            ("name", elf.text(view.string(symbol.st_name)), entry.name),
            ("section", section, entry.section),
            ("value", symbol.st_value, entry.value),
            ("size", symbol.st_size, entry.size),
            ("type", elf.STT_NAMES.get(symbol.type, str(symbol.type)), entry.type),
            ("binding", elf.STB_NAMES.get(symbol.binding, str(symbol.binding)), entry.binding),
        ):
            if is_now != was:
                yield f"symbol {entry.index}: {what} is {is_now}, the manifest says {was}"
    for reference in found.references:
        if reference.index >= view.symbol_count:
            yield f"symbol {reference.index} ({reference.name}) does not exist"
        elif (name := view.string(view.symbol(reference.index).st_name)) != reference.name.encode():
            yield f"symbol {reference.index}: name is {elf.text(name)}, the manifest says {reference.name}"
    if found.functions:
        yield from _function_findings(view, found)


def _function_findings(view: elf.Object, found: Manifest) -> Iterator[str]:
    from lpmangle.mangle.function_names import by_name

    try:
        names = {entry.entry: elf.text(entry.name) for entry in by_name(Payload(view))}
    except LpmangleError as error:
        yield error.message
        return
    for function in found.functions:
        if (name := names.get(function.entry)) != function.name:
            yield f".livepatch.funcs entry {function.entry}: name is {name}, the manifest says {function.name}"


def lief_findings(before: bytes, after: bytes, found: Manifest) -> Iterator[str]:
    """What LIEF sees that differs between the two files beyond the renames of the manifest."""
    old, new = lief_view(before), lief_view(after)
    if old is None or new is None:
        yield "LIEF cannot read it"
        return
    names = {symbol.index: symbol.name for symbol in found.named}
    moved = {place.section for place in found.string_sections}
    if names or moved:
        moved.add(found.string_table.section)
    if len(old["symbols"]) != len(new["symbols"]) or len(old["sections"]) != len(new["sections"]):
        yield "LIEF: the number of symbols or sections differs"
        return
    for index, (was, is_now) in enumerate(zip(old["symbols"], new["symbols"], strict=True)):
        expected = (names.get(index, was[0]), *was[1:])
        if is_now != expected:
            yield f"LIEF: symbol {index} is {is_now}, expected {expected}"
    for index, (was, is_now) in enumerate(zip(old["sections"], new["sections"], strict=True)):
        if index in moved:
            was, is_now = was[:2], is_now[:2]
        if is_now != was:
            yield f"LIEF: section {index} is {is_now}, was {was}"


def lief_view(data: bytes) -> dict[str, list[tuple[Any, ...]]] | None:
    import lief

    config = lief.ELF.ParserConfig()
    config.parse_relocations = False
    config.parse_dyn_symbols = False
    config.parse_symbol_versions = False
    config.parse_notes = False
    config.parse_overlay = False
    config.parse_symtab_symbols = True
    lief.logging.disable()
    with warnings.catch_warnings():  # of types that it has no name for
        warnings.simplefilter("ignore")
        return _lief_tables(lief.ELF.parse(data, config))


def _lief_tables(binary: Any) -> dict[str, list[tuple[Any, ...]]] | None:
    if binary is None:
        return None
    return {
        "symbols": [
            (s.name, int(s.value), s.size, int(s.type), int(s.binding), s.other, s.shndx) for s in binary.symtab_symbols
        ],
        "sections": [
            (
                s.name,
                int(s.type),
                s.file_offset,
                s.size,
                s.flags,
                s.link,
                s.information,
                s.alignment,
                s.entry_size,
            )
            for s in binary.sections
        ],
    }
