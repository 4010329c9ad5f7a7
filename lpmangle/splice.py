"""A plan onto bytes, the proof that only names changed, and the way back.

The new file is the old one with a new string table behind it: the old strings, a mark, the new names. The string
table's header points there and the renamed symbols' st_name into it; every other byte stays. The old table stays where
it was, unused. It is never edited in place: names share tails and offsets, and it may hold section names as well.
"""

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lpmangle import elf
from lpmangle.errors import ElfError, ManifestError, PlanError, ProofError
from lpmangle.manifest_writer import sha256
from lpmangle.plan import Plan

if TYPE_CHECKING:
    from lpmangle.manifest import Manifest

ALIGNMENT = 8  # of the new string table in the file; it needs none, but tools print rounder offsets


def apply(view: elf.Object, plan: Plan) -> bytes | bytearray:
    """The bytes of the renamed payload; the very input if nothing is renamed."""
    if not plan.renames:
        return view.data
    names = b"\0".join(plan.renames.values())
    table_offset = -(-len(view.data) // ALIGNMENT) * ALIGNMENT
    table_size = view.strtab.size + len(plan.mark) + 1 + len(names) + 1
    limit = 2**64 if view.layout.is_64 else 2**32
    if table_size >= 2**32 or table_offset + table_size > limit:
        raise PlanError("the new names do not fit into an ELF string table")

    out = bytearray(table_offset + table_size)
    out[: len(view.data)] = view.data
    at = table_offset
    # The NUL of the last name is there already.
    for part in (view.section_data(view.strtab), plan.mark, b"\0", names):
        out[at : at + len(part)] = part
        at += len(part)

    st_name = table_size - len(names) - 1
    pack_word = view.layout.word.pack_into
    for index, name in plan.renames.items():
        pack_word(out, view.symbol_offset(index), st_name)
        st_name += len(name) + 1
    _point_string_table(out, view, view.strtab.number, table_offset, table_size)
    return out


def prove(view: elf.Object, after: bytes | bytearray, renames: Mapping[int, bytes]) -> None:
    """Raise ProofError unless `after` is the file of `view` with exactly the symbols of `renames` renamed.

    The input alone says which bytes may differ: the st_name of those symbols, and sh_offset and sh_size
    of the string table. All others must be equal; what was appended must be one string table: the old one, one string
    that nothing refers to, and the new names where the symbols now point.
    """
    before, layout, strtab = view.data, view.layout, view.strtab
    header = view.section_header_offset(strtab.number) + layout.sh_offset_at
    masked = bytearray(memoryview(after)[: len(before)])
    if len(masked) < len(before):
        raise ProofError("the output is shorter than the input")
    table_offset, table_size = (layout.address.unpack_from(masked, header + n * layout.address.size)[0] for n in (0, 1))
    if not renames:
        if after != before:
            raise ProofError("nothing was to be renamed, but bytes differ")
        return
    if table_offset < len(before) or table_offset + table_size != len(after):
        raise ProofError("the new string table is not what was appended")
    if any(memoryview(after)[len(before) : table_offset]):
        raise ProofError("bytes were appended outside the new string table")
    table = bytes(memoryview(after)[table_offset:])
    if not table.startswith(view.section_data(strtab)) or table[-1]:
        raise ProofError("the new string table does not begin with the old one, or is not terminated")

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
    if masked != before:
        at = next(at for at, (old, new) in enumerate(zip(before, masked, strict=True)) if old != new)
        raise ProofError(f"byte {at:#x} differs, which no rename touches")


def undo(view: elf.Object, manifest: "Manifest") -> bytes:
    """The input that `manifest` was made from, byte for byte; raises ManifestError if it cannot be had from `view`."""
    other = ManifestError(
        "the manifest does not lead back to the original: it is another payload's, or the payload was changed since",
        hint="give the right manifest with -m",
    )
    table, size = manifest.string_table, manifest.input.size
    if size > len(view.data) or table.section != view.strtab.number:
        raise other
    out = bytearray(view.data[:size])
    try:
        for symbol in manifest.symbols:
            if symbol.index >= view.symbol_count:
                raise other
            view.layout.word.pack_into(out, view.symbol_offset(symbol.index), symbol.st_name)
        if manifest.symbols:
            _point_string_table(out, view, table.section, table.offset, table.size)
    except struct.error:  # an offset past the shortened file, or a number that its field cannot hold
        raise other from None
    if len(out) != size or sha256(out) != manifest.input.sha256:
        raise other
    # The manifest vouches for nothing: what it leads to must be a payload that becomes this one by these renames.
    original = bytes(out)
    try:
        before = elf.parse(original)
        prove(before, view.data, {symbol.index: symbol.name.encode() for symbol in manifest.symbols})
        if any(before.string(before.symbol(s.index).st_name) != s.original.encode() for s in manifest.symbols):
            raise other
    except (ElfError, ProofError):
        raise other from None
    return original


def _point_string_table(out: bytearray, view: elf.Object, index: int, offset: int, size: int) -> None:
    address = view.layout.address
    at = view.section_header_offset(index) + view.layout.sh_offset_at
    address.pack_into(out, at, offset)
    address.pack_into(out, at + address.size, size)
