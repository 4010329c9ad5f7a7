"""Applies a plan to bytes, and proves that only names changed.

The new file is the old one with a new string table after it: the old strings, a mark, the new names. The string table's
header points there, and st_name of the renamed symbols points into it; every other byte stays. The old table stays
where it was, unused. It is never edited in place: names share tails and offsets, and it may also hold section names. If
entries of .livepatch.funcs get other names, `functions` has done that before, and its sections are in between.
"""

import sys
from array import array
from collections.abc import Mapping

from lpmangle import elf
from lpmangle.errors import PlanError, ProofError
from lpmangle.mangle.plan import Plan
from lpmangle.xen.payload import Payload

ALIGNMENT = 8  # of the new string table in the file; it needs none, but offsets are easier to read


def apply(payload: Payload, plan: Plan) -> bytes | bytearray:
    """The bytes of the renamed payload; the input itself if nothing is renamed. Raises PlanError."""
    view = payload.elf
    if not plan.changes:
        return view.data
    if plan.functions:
        from lpmangle.mangle import function_names as functions  # few payloads are stacked

        view = functions.rename(payload, plan.function_names).elf
    renames = plan.names
    names, mark = b"\0".join([*renames.values(), b""]), plan.mark.encode()
    table_offset = aligned(len(view.data))
    table_size = view.strtab.size + len(mark) + 1 + len(names)
    limit = 2**64 if view.layout.is_64 else 2**32
    if table_size >= 2**32 or table_offset + table_size > limit:
        raise PlanError("the new names do not fit into an ELF string table")

    out = bytearray(table_offset + table_size)
    with memoryview(out) as into:  # a bytearray would copy what is assigned to it first
        into[: len(view.data)] = view.data
        at, st_name = table_offset, table_size - len(names)
        for part in (view.section_data(view.strtab), mark, b"\0", names):
            into[at : at + len(part)] = part
            at += len(part)
    del names, part  # large ones

    words, column = _symbol_words(view, view.data)
    for index, name in renames.items():
        column[index] = st_name
        st_name += len(name) + 1
    _put_symbol_words(out, view, words, column)
    view.put_place(out, view.strtab.number, table_offset, table_size)
    return out


def aligned(size: int) -> int:
    """Where the new string table begins in a file that had `size` bytes."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def prove(
    payload: Payload,
    after: bytes | bytearray,
    renames: Mapping[int, bytes],
    function_names: Mapping[int, bytes] | None = None,
) -> None:
    """Raise ProofError unless `after` is the file of `payload` with exactly the symbols of `renames` renamed.

    Only the input says which bytes may differ: the st_name of those symbols, and sh_offset and sh_size
    of the string table. All others must be equal; what was appended must be one string table: the old one, one string
    that nothing refers to, and the new names where the symbols now point. With `function_names`, those entries of
    .livepatch.funcs are renamed, too, and what `functions.prove` allows may also differ.
    """
    view = payload.elf
    before, layout, strtab = view.data, view.layout, view.strtab
    if not renames and not function_names:
        if after != before:
            raise ProofError("nothing was to be renamed, but bytes differ")
        return
    if len(after) < len(before):
        raise ProofError("the output is shorter than the input")
    header = view.place_at(strtab.number)
    table_offset, table_size = (layout.address.unpack_from(after, header + n * layout.address.size)[0] for n in (0, 1))
    if table_offset < len(before) or table_offset + table_size != len(after):
        raise ProofError("the new string table is not what was appended")
    if renames and max(renames) >= view.symbol_count:
        raise ProofError(f"there is no symbol {max(renames)}")
    names = b"\0".join([*renames.values(), b""])
    mark_at, first = table_offset + strtab.size, len(after) - len(names)
    if not after.startswith(view.section_data(strtab), table_offset):
        raise ProofError("the new string table does not begin with the old one")
    if not after.endswith(names) or after.find(b"\0", mark_at) != first - 1 or names.count(b"\0") != len(renames):
        raise ProofError("the new string table holds not just the old strings, one mark and the new names")
    del names

    # The file without the new table, and with everything that may differ undone.
    masked = bytearray(memoryview(after)[: table_offset if function_names else len(before)])
    st_name = first - table_offset
    (words, column), old_column = _symbol_words(view, masked), view.symbol_column("st_name")
    expected = old_column[:]
    for index, name in renames.items():
        expected[index] = st_name
        st_name += len(name) + 1
    if column != expected:
        index = next(index for index, pair in enumerate(zip(column, expected, strict=True)) if pair[0] != pair[1])
        what = f"is not called {renames[index]!r}" if index in renames else "has another name"
        raise ProofError(f"symbol {index} {what}")
    _put_symbol_words(masked, view, words, old_column)
    masked[header : header + 2 * layout.address.size] = before[header : header + 2 * layout.address.size]
    if function_names:
        from lpmangle.mangle import function_names as functions

        functions.prove(payload, bytes(masked), function_names)
        return
    if any(memoryview(after)[len(before) : table_offset]):
        raise ProofError("bytes were appended outside the new string table")
    if masked != before:
        at = next(at for at, (old, new) in enumerate(zip(before, masked, strict=True)) if old != new)
        raise ProofError(f"byte {at:#x} differs, which no rename touches")


def _symbol_words(view: elf.Object, data: bytes | bytearray) -> tuple["array[int]", "array[int]"]:
    """The symbol table in `data`, which has the layout of `view`, as 32-bit words; and the st_name of each symbol."""
    words = array("I")
    words.frombytes(memoryview(data)[view.symtab.offset : view.symtab.end])
    if view.layout.big_endian != (sys.byteorder == "big"):
        words.byteswap()
    return words, words[:: view.layout.sym.size // words.itemsize]


def _put_symbol_words(out: bytearray, view: elf.Object, words: "array[int]", column: "array[int]") -> None:
    """Write the symbol table into `out`, with `column` for st_name."""
    words[:: view.layout.sym.size // words.itemsize] = column
    if view.layout.big_endian != (sys.byteorder == "big"):
        words.byteswap()
    memoryview(out)[view.symtab.offset : view.symtab.end] = memoryview(words).cast("B")
