"""What names in a stack of payloads mean for Xen. Written from Xen's sources and the ELF specification for these tests,
without code of lpmangle, so that each can check the other; for 64-bit little-endian files."""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

ALLOC, WRITE, EXEC, MERGE = 2, 1, 4, 0x10
KEPT = 126  # build_symbol_table: strlcpy(..., KSYM_NAME_LEN)
ENTRY = 104

# A place: ("xen", name) or (number of the payload, section, offset); None: Xen finds nothing.
Meaning = tuple[object, ...] | None


@dataclass
class File:
    """sections: name, type, flags, file offset, size, link, info, alignment. symbols: name, section, value."""

    data: bytes
    sections: list[tuple[str, int, int, int, int, int, int, int]]
    symbols: list[tuple[bytes, int, int]]
    # (section, offset) -> symbol, addend
    relocations: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)

    def section(self, name: str) -> int:
        return next((number for number, section in enumerate(self.sections) if section[0] == name), 0)

    def string(self, section: int, offset: int) -> bytes:
        start = self.sections[section][3] + offset
        return self.data[start : self.data.index(b"\0", start)]


def read(data: bytes) -> File:
    shoff, shnum, shstrndx = (*struct.unpack_from("<Q", data, 40), *struct.unpack_from("<HH", data, 60))
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, shoff + 64 * number) for number in range(shnum)]

    def text(table: int, offset: int) -> bytes:
        start = headers[table][4] + offset
        return data[start : data.index(b"\0", start)]

    sections = [(text(shstrndx, h[0]).decode(), h[1], h[2], h[4], h[5], h[6], h[7], h[8]) for h in headers]
    symtab = next(number for number, section in enumerate(sections) if section[1] == 2)
    _, _, _, offset, size, strtab, _, _ = sections[symtab]
    rows = struct.iter_unpack("<IBBHQQ", data[offset : offset + size])
    file = File(data, sections, [(text(strtab, name), shndx, value) for name, _, _, shndx, value, _ in rows])
    for _, kind, _, offset, size, _, info, _ in sections:
        if kind == 4:
            for place, symbol, addend in struct.iter_unpack("<QQq", data[offset : offset + size]):
                file.relocations[info, place] = symbol >> 32, addend
    return file


def bases(file: File, empty_placed: bool) -> list[int | None]:
    """move_payload: code, writable data, read-only data, each from a new page on; sections of size 0 by version."""
    ends = {"code": 0, "data": 0, "read-only": 0}
    placed: list[tuple[str, int] | None] = []
    for number, (_, _, flags, _, size, _, _, alignment) in enumerate(file.sections):
        if not number or not flags & ALLOC or (not size and not empty_placed):
            placed.append(None)
            continue
        region = "code" if flags & EXEC else "data" if flags & WRITE else "read-only"
        step = max(alignment, 1)
        start = (ends[region] + step - 1) // step * step
        placed.append((region, start))
        ends[region] = start + size
    pages = {region: (end + 4095) // 4096 * 4096 for region, end in ends.items()}
    first = {"code": 0, "data": pages["code"], "read-only": pages["code"] + pages["data"]}
    return [None if place is None else first[place[0]] + place[1] for place in placed]


def new_symbols(file: File, empty_placed: bool) -> list[tuple[bytes, tuple[int, int]]]:
    """Name as Xen keeps it, section and offset of each symbol that is registered as new, in table order."""
    where = bases(file, empty_placed)

    def address(symbol: int, addend: int = 0) -> int | None:
        _, shndx, value = file.symbols[symbol]
        if not 0 < shndx < len(file.sections):
            return None
        base = where[shndx]
        return value + addend if base is None else 1 << 40 | base + value + addend

    entries = file.section(".livepatch.funcs")
    replacements = {
        address(*target)
        for (section, place), target in file.relocations.items()
        if section == entries and place % ENTRY == 8
    }
    found = []
    for index, (name, shndx, value) in enumerate(file.symbols):
        if not index or not name or not 0 < shndx < len(file.sections):
            continue
        flags = file.sections[shndx][2]
        if not flags & ALLOC or (flags & MERGE and name[:2] == b".L"):
            continue
        at = address(index)
        if not at or at not in replacements:
            found.append((name[:KEPT], (shndx, value)))
    return found


@dataclass
class Result:
    """`meanings` has one for each relocation (payload, section, offset) and function (payload, "function", number)."""

    meanings: dict[tuple[object, ...], Meaning]
    # (payload, name, who has it): "xen" or the number of a payload
    collisions: list[tuple[int, bytes, object]]


def resolve(stack: Sequence[File], hypervisor: Collection[bytes], empty_placed: bool) -> Result:
    """As if payloads were loaded in spite of collisions."""
    meanings: dict[tuple[object, ...], Meaning] = {}
    collisions: list[tuple[int, bytes, object]] = []
    loaded: list[list[tuple[bytes, tuple[int, int]]]] = []

    def look_up(name: bytes) -> Meaning:
        if name in hypervisor:
            return "xen", name
        for number, symbols in enumerate(loaded):
            for there, place in symbols:
                if there == name:
                    return number, *place
        return None

    for number, file in enumerate(stack):
        entries = file.section(".livepatch.funcs")
        for (section, place), (symbol, addend) in file.relocations.items():
            name, shndx, value = file.symbols[symbol]
            if section == entries and place % ENTRY == 0:
                meanings[number, "function", place // ENTRY] = look_up(file.string(shndx, value + addend))
            elif shndx == 0:
                found = look_up(name)
                meanings[number, section, place] = found and (*found, "+", addend)
            else:
                meanings[number, section, place] = (number, shndx, value + addend)
        own = new_symbols(file, empty_placed)
        for name, _ in own:
            if name in hypervisor:
                collisions.append((number, name, "xen"))
            for below, symbols in enumerate(loaded):
                if any(there == name for there, _ in symbols):
                    collisions.append((number, name, below))
        loaded.append(own)
    return Result(meanings, collisions)
