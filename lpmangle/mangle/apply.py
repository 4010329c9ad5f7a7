"""Applies a plan to bytes, and proves that only names changed.

The new file is the old one with a new string table after it: the old strings, a mark, the new names. The string table's
header points there, and st_name of the renamed symbols points into it; every other byte stays. The old table stays
where it was, unused. It is never edited in place: names share tails and offsets, and it may also hold section names. If
entries of .livepatch.funcs get other names, `functions` has done that before, and its sections are in between.
"""

from itertools import chain, islice

from lpmangle.errors import PlanError, ProofError
from lpmangle.mangle.plan import Plan
from lpmangle.system.light import Collection, Iterable, Iterator, Mapping
from lpmangle.xen.payload import Payload

ALIGNMENT = 8  # of the new string table in the file; it needs none, but offsets are easier to read
# This many names are joined at once, so that those of a million symbols are never in memory twice.
_NAMES = 1024


def apply(payload: Payload, plan: Plan) -> bytes | bytearray:
    """The bytes of the renamed payload; the input itself if nothing is renamed. Raises PlanError."""
    view = payload.elf
    if not plan.changes:
        return view.data
    if plan.functions:
        from lpmangle.mangle import function_names as functions  # few payloads are stacked

        view = functions.rename(payload, plan.function_names).elf
    renames, mark = plan.names, plan.mark.encode()
    table_offset = aligned(len(view.data))
    st_name = view.strtab.size + len(mark) + 1
    table_size = st_name + _size(renames.values())
    limit = 2**64 if view.layout.is_64 else 2**32
    if table_size >= 2**32 or table_offset + table_size > limit:
        raise PlanError("the new names do not fit into an ELF string table")

    out = bytearray(table_offset + table_size)
    with memoryview(out) as into:  # a bytearray would copy what is assigned to it first
        into[: len(view.data)] = view.data
        at = table_offset
        kept: tuple[memoryview | bytes, ...] = (view.section_data(view.strtab), mark, b"\0")
        for part in chain(kept, _joined(renames.values())):
            into[at : at + len(part)] = part
            at += len(part)
        symbols, column = bytearray(view.section_data(view.symtab)), view.symbol_column("st_name")
        for index, name in renames.items():
            column[index] = st_name
            st_name += len(name) + 1
        view.layout.put_symbol_column(symbols, "st_name", column)
        into[view.symtab.offset : view.symtab.end] = symbols
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
    before, layout, strtab, symtab = view.data, view.layout, view.strtab, view.symtab
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
    mark_at, first = table_offset + strtab.size, len(after) - _size(renames.values())
    if not after.startswith(view.section_data(strtab), table_offset):
        raise ProofError("the new string table does not begin with the old one")
    if not mark_at < first == after.find(b"\0", mark_at) + 1 or not _are_at(after, first, renames.values()):
        raise ProofError("the new string table holds not just the old strings, one mark and the new names")

    symbols = bytearray(memoryview(after)[symtab.offset : symtab.end])
    column, expected = layout.symbol_column(symbols, "st_name"), view.symbol_column("st_name")
    st_name = first - table_offset
    for index, name in renames.items():
        expected[index] = st_name
        st_name += len(name) + 1
    if column != expected:
        index = next(index for index, pair in enumerate(zip(column, expected, strict=True)) if pair[0] != pair[1])
        what = f"is not called {renames[index]!r}" if index in renames else "has another name"
        raise ProofError(f"symbol {index} {what}")

    # The file without the new table, and with everything that may differ undone.
    layout.put_symbol_column(symbols, "st_name", view.symbol_column("st_name"))
    undone = [
        (symtab.offset, memoryview(symbols)),
        (header, memoryview(before)[header : header + 2 * layout.address.size]),
    ]
    end = table_offset if function_names else len(before)
    masked = list(_patched(memoryview(after)[:end], sorted(undone)))
    if function_names:
        from lpmangle.mangle import function_names as functions

        functions.prove(payload, b"".join(masked), function_names)
        return
    if any(memoryview(after)[len(before) : table_offset]):
        raise ProofError("bytes were appended outside the new string table")
    at = 0
    for part in masked:
        if not before.startswith(part, at):
            at += next(n for n, byte in enumerate(part) if before[at + n] != byte)
            raise ProofError(f"byte {at:#x} differs, which no rename touches")
        at += len(part)
    if at != len(before):
        raise ProofError(f"the file ends at {at:#x} in place of {len(before):#x}")


def _size(names: Collection[bytes]) -> int:
    """The number of bytes that the names take in a string table."""
    return sum(map(len, names)) + len(names)


def _joined(names: Iterable[bytes]) -> Iterator[bytes]:
    """The names as a string table has them, many in one piece."""
    rest = iter(names)
    while some := list(islice(rest, _NAMES)):
        yield b"\0".join([*some, b""])


def _are_at(data: bytes | bytearray, at: int, names: Collection[bytes]) -> bool:
    """Whether the names, and no other strings, are from `at` to the end of `data`."""
    ends = 0
    for piece in _joined(names):
        if not data.startswith(piece, at):
            return False
        at += len(piece)
        ends += piece.count(b"\0")
    return at == len(data) and ends == len(names)


def _patched(data: memoryview, patches: Iterable[tuple[int, memoryview]]) -> Iterator[memoryview]:
    """`data` in pieces, with other content at these offsets; they are in order, and nothing overlaps."""
    at = 0
    for start, content in patches:
        yield data[at:start]
        yield content
        at = start + len(content)
    yield data[at:]
