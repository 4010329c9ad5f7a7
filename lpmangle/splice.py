"""A plan onto bytes, the proof that only names changed, and the way back.

The new file is the old one with a new string table behind it: the old strings, a mark, the new names. The string
table's header points there and the renamed symbols' st_name into it; every other byte stays. The old table stays where
it was, unused. It is never edited in place: names share tails and offsets, and it may hold section names as well.
Where entries of .livepatch.funcs get other names, `functions` has done that before, and its sections stand in between.
"""

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lpmangle import elf
from lpmangle.errors import ElfError, ManifestError, PayloadError, PlanError, ProofError
from lpmangle.manifest_writer import sha256
from lpmangle.plan import Plan
from lpmangle.xen import Payload

if TYPE_CHECKING:
    from lpmangle.manifest import Manifest

ALIGNMENT = 8  # of the new string table in the file; it needs none, but tools print rounder offsets


def apply(view: elf.Object, plan: Plan) -> bytes | bytearray:
    """The bytes of the renamed payload; the very input if nothing is renamed. Raises PlanError."""
    if not plan.changes:
        return view.data
    if plan.functions:
        from lpmangle import functions

        view = elf.parse(functions.rename(Payload(view), plan.function_names))
    renames = plan.names
    names = b"\0".join([*renames.values(), b""])
    table_offset = -(-len(view.data) // ALIGNMENT) * ALIGNMENT
    table_size = view.strtab.size + len(plan.mark) + 1 + len(names)
    limit = 2**64 if view.layout.is_64 else 2**32
    if table_size >= 2**32 or table_offset + table_size > limit:
        raise PlanError("the new names do not fit into an ELF string table")

    out = bytearray(table_offset + table_size)
    out[: len(view.data)] = view.data
    at = table_offset
    for part in (view.section_data(view.strtab), plan.mark, b"\0", names):
        out[at : at + len(part)] = part
        at += len(part)

    st_name = table_size - len(names)
    pack_word = view.layout.word.pack_into
    for index, name in renames.items():
        pack_word(out, view.symbol_offset(index), st_name)
        st_name += len(name) + 1
    _point_string_table(out, view, view.strtab.number, table_offset, table_size)
    return out


def prove(
    view: elf.Object,
    after: bytes | bytearray,
    renames: Mapping[int, bytes],
    function_names: Mapping[int, bytes] | None = None,
) -> None:
    """Raise ProofError unless `after` is the file of `view` with exactly the symbols of `renames` renamed.

    The input alone says which bytes may differ: the st_name of those symbols, and sh_offset and sh_size
    of the string table. All others must be equal; what was appended must be one string table: the old one, one string
    that nothing refers to, and the new names where the symbols now point. With `function_names`, those entries of
    .livepatch.funcs are renamed as well, and what `functions.prove` allows may differ too.
    """
    before, layout, strtab = view.data, view.layout, view.strtab
    if not renames and not function_names:
        if after != before:
            raise ProofError("nothing was to be renamed, but bytes differ")
        return
    if len(after) < len(before):
        raise ProofError("the output is shorter than the input")
    header = view.section_header_offset(strtab.number) + layout.sh_offset_at
    table_offset, table_size = (layout.address.unpack_from(after, header + n * layout.address.size)[0] for n in (0, 1))
    if table_offset < len(before) or table_offset + table_size != len(after):
        raise ProofError("the new string table is not what was appended")
    table = bytes(memoryview(after)[table_offset:])
    if not table.startswith(view.section_data(strtab)) or table[-1]:
        raise ProofError("the new string table does not begin with the old one, or is not terminated")

    if renames and max(renames) >= view.symbol_count:
        raise ProofError(f"there is no symbol {max(renames)}")

    # The file without the new table, and with all that may differ put back.
    masked = bytearray(memoryview(after)[: table_offset if function_names else len(before)])
    entry, unpack_word = layout.sym.size, layout.word.unpack_from
    first, size = len(table), 0
    for index, name in renames.items():
        at = view.symtab.offset + index * entry
        (st_name,) = unpack_word(masked, at)
        if st_name < strtab.size or not table.startswith(name + b"\0", st_name):
            raise ProofError(f"symbol {index} is not called {name!r}")
        first = min(first, st_name)
        size += len(name) + 1
        masked[at : at + 4] = before[at : at + 4]
    if first + size != len(table) or table.find(b"\0", strtab.size) != first - 1:
        raise ProofError("the new string table holds more than the old strings, one mark and the new names")
    masked[header : header + 2 * layout.address.size] = before[header : header + 2 * layout.address.size]
    if function_names:
        from lpmangle import functions

        functions.prove(Payload(view), bytes(masked), function_names)
        return
    if any(memoryview(after)[len(before) : table_offset]):
        raise ProofError("bytes were appended outside the new string table")
    if masked != before:
        at = next(at for at, (old, new) in enumerate(zip(before, masked, strict=True)) if old != new)
        raise ProofError(f"byte {at:#x} differs, which no rename touches")


def prove_manifest(view: elf.Object, after: bytes, manifest: "Manifest") -> None:
    """Raise ProofError unless `after` is the file of `view` with exactly the new names that `manifest` says."""
    names = {symbol.index: symbol.name.encode() for symbol in manifest.named}
    prove(view, after, names, {function.entry: function.name.encode() for function in manifest.functions})


def undo(view: elf.Object, manifest: "Manifest") -> bytes:
    """The input that `manifest` was made from, byte for byte; raises ManifestError if it cannot be had from `view`."""
    other = ManifestError(
        "the manifest does not lead back to the original: it is another payload's, or the payload was changed since",
        hint="give the right manifest with -m",
    )
    table, size = manifest.string_table, manifest.input.size
    renamed = manifest.named
    if size > len(view.data) or table.section != view.strtab.number:
        raise other
    out = bytearray(view.data[:size])
    try:
        for symbol in renamed:
            if symbol.index >= view.symbol_count:
                raise other
            view.layout.word.pack_into(out, view.symbol_offset(symbol.index), symbol.st_name)
        if renamed or manifest.functions:
            _point_string_table(out, view, table.section, table.offset, table.size)
        if manifest.functions:
            _undo_functions(out, view, manifest)
    # An offset past the shortened file, a number that its field cannot hold; an entry or a section that does not exist.
    except (struct.error, KeyError, IndexError, ElfError, PayloadError):
        raise other from None
    if len(out) != size or sha256(out) != manifest.input.sha256:
        raise other
    # The manifest vouches for nothing: what it leads to must be a payload that becomes this one by these renames.
    original = bytes(out)
    try:
        before = elf.parse(original)
        prove_manifest(before, view.data, manifest)
        if any(before.string(before.symbol(s.index).st_name) != s.original.encode() for s in renamed):
            raise other
    except (ElfError, PayloadError, ProofError):
        raise other from None
    return original


def _undo_functions(out: bytearray, view: elf.Object, manifest: "Manifest") -> None:
    from lpmangle import functions

    addends = {function.entry: function.addend for function in manifest.functions}
    places = {place.section: (place.offset, place.size) for place in manifest.string_sections}
    functions.restore(out, Payload(view), addends, places)


def _point_string_table(out: bytearray, view: elf.Object, index: int, offset: int, size: int) -> None:
    address = view.layout.address
    at = view.section_header_offset(index) + view.layout.sh_offset_at
    address.pack_into(out, at, offset)
    address.pack_into(out, at + address.size, size)
