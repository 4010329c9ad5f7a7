"""Does a payload agree with its manifest, and do only names differ? Each difference is one line.

First by our own reader: digests, notes, options, the recovered original and the proof between the two, and the manifest
made again from it. If the original cannot be recovered, each symbol of the manifest, or, if the symbol table was
rewritten, each name. Then by LIEF (`second_opinion`).
"""

from collections.abc import Iterator, Sequence

from lpmangle import elf
from lpmangle.errors import LpmangleError
from lpmangle.mangle import mark
from lpmangle.mangle.apply import aligned
from lpmangle.manifest.read import Manifest, SymbolRecord
from lpmangle.manifest.undo import prove_manifest, undo
from lpmangle.system.files import sha256
from lpmangle.verify import again, claims, rewritten, second_opinion
from lpmangle.xen.payload import Payload

CHANGED_SINCE = "the payload was changed after lpmangle wrote it (by objcopy, strip or a signer), or is another payload"
NOT_MANGLED = "it is not mangled: it was rebuilt, or is another payload"


def findings(
    view: elf.Object,
    found: Manifest,
    name: str,
    original: elf.Object | None = None,
    since: Sequence[str] | None = None,
) -> Iterator[str]:
    """One line for each difference; none if all is well.

    `name` is the name by which the payload is uploaded, from its file name; `original` the file that it was made from,
    if known. `since` are all changes in the content of a payload that was rewritten, if known.
    """
    digest = sha256(view.data)
    if digest == found.input.sha256 != found.output.sha256:
        yield "is the original: it is not mangled"
        return
    restored, no_way_back = _restored(view, found)
    unmangled = restored is None and rewritten.is_unmangled(view, found)
    if digest != found.output.sha256:
        why = "" if restored else f": {NOT_MANGLED if unmangled else CHANGED_SINCE}"
        yield f"sha256 is {digest}, the manifest says {found.output.sha256}{why}"
    if original and (of_original := sha256(original.data)) != found.input.sha256:
        yield f"the original's sha256 is {of_original}, the manifest says {found.input.sha256}"
    yield from _note_findings(view, found)
    if name != found.payload and digest != found.output.sha256:  # else only the file was renamed: harmless
        yield f"its file is called {name}, the manifest says that it is uploaded as {found.payload}"
    yield from claims.about_itself(found)
    wrong_options = list(claims.about_options(view, found))
    yield from wrong_options
    yield from claims.about_below(view, found)

    if unmangled:
        return
    if restored is None:
        if digest != found.output.sha256 and (since is not None or is_rewritten(view, found)):
            yield from rewritten.since(view, found, original if since is None else None, named=since is None)
            yield from since or ()
            return
        yield from _symbol_findings(view, found)
        yield from _place_findings(view, found)
        yield no_way_back
    before = restored
    if original and original.data != (restored and restored.data):  # the result of `undo` is proven
        try:
            prove_manifest(Payload(original), view.data, found)
            before = restored or original
        except LpmangleError as error:
            yield error.message.removeprefix("proof failed, nothing was written: ")
    if before and not wrong_options:
        yield from again.differences(before, view.data, found)
    elif restored:
        yield from _symbol_findings(view, found)
    if older := original or before:
        yield from second_opinion.on_names(older.data, view.data, found)


def _restored(view: elf.Object, found: Manifest) -> tuple[elf.Object | None, str]:
    """The original; or None, and why it cannot be recovered."""
    try:
        return elf.parse(undo(view, found)), ""
    except LpmangleError as error:
        return None, error.message


def is_rewritten(view: elf.Object, found: Manifest) -> bool:
    """Whether another tool has rewritten the string table, and may have renumbered the symbols.

    A file that lpmangle wrote ends with the string table, which has the mark. objcopy drops the mark, because nothing
    refers to it; eu-strip may keep it.
    """
    if not found.named and not found.functions:
        return False
    return mark.find(view) is None or not view.strtab.end == len(view.data) == found.output.size


def _note_findings(view: elf.Object, found: Manifest) -> Iterator[str]:
    payload = Payload(view)
    machine = elf.EM_NAMES.get(view.machine, str(view.machine))
    if machine != found.machine:
        yield f"machine is {machine}, the manifest says {found.machine}"
    try:
        if (build_id := payload.build_id and payload.build_id.hex()) != found.build_id:
            yield f"build-id is {build_id}, the manifest says {found.build_id}: it was changed since (find-debuginfo?)"
        for what, note, said in (
            ("depends", payload.depends, found.depends),
            ("xen-depends", payload.xen_depends, found.xen_depends),
        ):
            if (note and note.hex()) != said:
                yield f"{what} is {note and note.hex()}, the manifest says {said}"
    except LpmangleError as error:
        yield error.message


def _symbol_findings(view: elf.Object, found: Manifest) -> Iterator[str]:
    """By index: the symbol table is as lpmangle left it, except for damage."""
    for entry in found.named:
        if entry.index >= view.symbol_count:
            yield f"symbol {entry.index} ({entry.name}) does not exist"
            continue
        symbol = view.symbol(entry.index)
        name = elf.text(view.string(symbol.st_name))
        if name != entry.name:
            yield f"symbol {entry.index}: name is {name}, the manifest says {entry.name}"
        if isinstance(entry, SymbolRecord):
            yield from (f"symbol {entry.index}: {line}" for line in rewritten.differences(view, symbol, entry))
        original = elf.text(view.string(entry.st_name)) if entry.st_name < found.string_table.size else None
        if original != entry.original:
            yield f"symbol {entry.index}: at st_name {entry.st_name} is {original}, the manifest says {entry.original}"
    yield from rewritten.function_differences(view, found)


def _place_findings(view: elf.Object, found: Manifest) -> Iterator[str]:
    """Places in the original file, as far as they are known from the mangled one (`mangle.apply`)."""
    if not found.named and not found.functions:
        return
    table, now, data = found.string_table, view.strtab, view.data
    if len(data) != found.output.size:
        yield f"output: size is {len(data)}, the manifest says {found.output.size}"
    if table.section != now.number:
        yield f"string_table: section is {now.number}, the manifest says {table.section}"
    # The new table begins with the old one, then comes the mark.
    end = now.offset + table.size
    if data[end - 1 : end + len(mark.MAGIC) - 1] != mark.MAGIC:
        yield f"string_table: size is not {table.size}, as the manifest says"
    elif data[table.offset : table.offset + table.size] != data[now.offset : end]:
        yield f"string_table: offset is not {table.offset}, as the manifest says"
    if not found.functions and now.offset != aligned(found.input.size):
        yield f"input: size is not {found.input.size}, as the manifest says"
