"""Changes that get further than random bytes: fields of ELF structures, values of JSON, pages of SQLite.

Each gets the input and a random generator, and returns a new input.
"""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

from lpmangle import elf
from lpmangle.errors import LpmangleError
from lpmangle.manifest import embed

from .readers import SEPARATOR

NAMES = (b".text", b".livepatch.funcs", b".note.gnu.build-id", b".livepatch.depends", b".altinstructions", b"a.c#f_SUF")


def number(rng: random.Random, size: int, near: int) -> int:
    """A number that is probably a limit of something."""
    limit = 1 << (8 * size)
    value = rng.choice(
        (0, 1, 2, 3, 7, 8, 24, 64, 0xFFF1, 0xFFF2, 1 << 31, limit - 1, limit - 8, limit >> 1, near, near - 1, near + 1,
         rng.randrange(limit), rng.randrange(64), rng.randrange(near + 1))
    )  # fmt: skip
    return int(value) % limit


def mutate_elf(data: bytes, rng: random.Random) -> bytes:
    """Fields of the header, of section headers, of entries in tables; sections moved onto each other."""
    out = bytearray(data)
    if len(out) < 64 or out[:4] != elf.ELFMAG:
        return mutate_bytes(data, rng)
    layout = elf.Layout(out[4] == 2, out[5] == 2)
    if len(out) < layout.ehdr_size:
        return mutate_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        fields = list(layout.ehdr.unpack_from(out, 16))
        e_shoff, count = fields[5], min(fields[11], 64)
        headers = [
            list(layout.shdr.unpack_from(out, e_shoff + n * layout.shdr.size))
            for n in range(count)
            if e_shoff + (n + 1) * layout.shdr.size <= len(out)
        ]
        kind = rng.randrange(12)
        if kind == 0 or not headers:
            _edit(out, layout.ehdr, 16, rng, (0, 1, 2, 5, 6, 10, 11, 12))
        elif kind in (1, 2, 3):
            _edit(out, layout.shdr, e_shoff + rng.randrange(len(headers)) * layout.shdr.size, rng, range(10))
        elif kind == 4:  # a field of another section
            one, other, field = rng.randrange(len(headers)), rng.choice(headers), rng.randrange(10)
            headers[one][field] = other[field]
            layout.shdr.pack_into(out, e_shoff + one * layout.shdr.size, *headers[one])
        else:
            _edit_content(out, layout, rng.choice(headers), headers, rng)
    return bytes(out)


def _edit(out: bytearray, shape: struct.Struct, at: int, rng: random.Random, which: Any) -> None:
    if at < 0 or at + shape.size > len(out):
        return
    fields = list(shape.unpack_from(out, at))
    field = rng.choice(list(which))
    code = shape.format[1 + field]
    value = number(rng, struct.calcsize(code.upper()), rng.choice([len(out), *(f for f in fields if 0 < f < 1 << 32)]))
    if code.islower() and value >> (8 * struct.calcsize(code) - 1):
        value -= 1 << (8 * struct.calcsize(code))
    if code == "Q" and rng.random() < 0.9:
        value %= 1 << rng.choice((5, 12, 16, 32))
    fields[field] = value
    shape.pack_into(out, at, *fields)


def _edit_content(
    out: bytearray, layout: elf.Layout, header: list[int], headers: list[list[int]], rng: random.Random
) -> None:
    start, size = header[4], header[5]
    if not size or start + size > len(out):
        return
    shapes = {elf.SHT_SYMTAB: layout.sym, elf.SHT_RELA: layout.rela, elf.SHT_REL: layout.rel}
    if header[1] in shapes:
        shape = shapes[header[1]]
        entries = size // shape.size
        if not entries:
            return
        at = start + rng.randrange(entries) * shape.size
        if rng.random() < 0.2:  # as another entry
            other = start + rng.randrange(entries) * shape.size
            out[at : at + shape.size] = out[other : other + shape.size]
        elif header[1] == elf.SHT_SYMTAB and rng.random() < 0.3:  # st_shndx
            field = 3 if layout.is_64 else 5
            fields = list(shape.unpack_from(out, at))
            fields[field] = rng.choice((rng.randrange(len(headers) + 1), 0xFFF1, 0xFFF2, 0))
            shape.pack_into(out, at, *fields)
        else:
            _edit(out, shape, at, rng, range(len(shape.format) - 1))
    elif header[1] == elf.SHT_STRTAB and rng.random() < 0.5:
        name = rng.choice(NAMES)
        at = start + rng.randrange(size)
        out[at : min(at + len(name), start + size - 1)] = name[: max(0, start + size - 1 - at)]
    else:
        at, width = start + rng.randrange(size), rng.choice((1, 2, 4, 8))
        value = number(rng, width, size).to_bytes(width, "big" if layout.ehdr.format[0] == ">" else "little")
        out[at : at + width] = value[: start + size - at]


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """What libFuzzer also does, for inputs without a recognisable structure."""
    out = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, kind = rng.randrange(len(out)), rng.randrange(5)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.choice((0, 1, 9, 10, 32, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            out[at:at] = out[rng.randrange(len(out)) :][: rng.randrange(1, 64)]
        elif kind == 3 and len(out) > 2:
            del out[at : at + rng.randrange(1, 32)]
            out = out or bytearray(b"\0")
        else:
            other = rng.randrange(len(out))
            piece = out[other : other + 8]
            out[at : at + len(piece)] = piece
    return bytes(out)


STRINGS = (
    "", "#", "a.c#f", "_SUF", "SUF", "../../x", "\x1b[2J", "\u202e", "\n", "\0", "x" * 127, "x" * 5000, "\ue000",
    "é" * 70, "lpmangle-manifest", "1.0", "2.0", "{suffix}",
    "{symbol}_{suffix}", "(a+)+$", "[", "*", "local", "new", "ab" * 20,
)  # fmt: skip
NUMBERS = (0, 1, -1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**40, 1.5, 1e308, 64, 128, 1000)


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Values replaced, removed, repeated, nested; sometimes the text itself."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _change(value, rng)
    out = json.dumps(value).encode()
    if rng.random() < 0.1:
        out = out.replace(b": 1", b": " + rng.choice((b"1" * 5000, b"1e5", b"-0", b"[" * 2000, b"0.1", b"1E400")), 1)
    if rng.random() < 0.1:
        out = out.replace(b'"x', rng.choice((b'"\\ud800', b'"\\u0000', b'"\xff', b'"\\udc80\\ud800')), 1)
    return mutate_bytes(out, rng) if rng.random() < 0.1 else out


def _change(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.95:
        key = rng.choice(list(value))
        if rng.random() < 0.05:
            del value[key]
        else:
            value[key] = _change(value[key], rng)
        return value
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        if rng.random() < 0.2:
            value.insert(at, value[at])
        else:
            value[at] = _change(value[at], rng)
        return value
    if isinstance(value, int) and rng.random() < 0.5:
        return value + rng.choice((-1, 1, 8, 24))
    if isinstance(value, str) and rng.random() < 0.5:
        at = rng.randrange(len(value) + 1)
        return value[:at] + rng.choice(STRINGS) + value[at + rng.randrange(4) :]
    return rng.choice((None, True, [], {}, rng.choice(NUMBERS), rng.choice(STRINGS)))


def mutate_embedded(data: bytes, rng: random.Random) -> bytes:
    """The manifest inside, its compression, or the payload around it."""
    if rng.random() < 0.4:
        return mutate_elf(data, rng)
    try:
        view = elf.parse(data)
        section = view.section_named(embed.SECTION)
        text = embed.extract(view) if section else None
    except LpmangleError:
        return mutate_elf(data, rng)
    if section is None or text is None:
        return mutate_elf(data, rng)
    text = mutate_json(text, rng)
    content = zlib.compress(text, rng.choice((1, 9)))
    if rng.random() < 0.1:
        content = rng.choice((content[:-1], content + b"\0", content + content, mutate_bytes(content, rng), text))
    out = bytearray(data)
    at = view.section_header_offset(section.number) + view.layout.sh_offset_at
    if len(content) <= section.size:
        out[section.offset : section.offset + len(content)] = content
        view.layout.address.pack_into(out, at + view.layout.address.size, len(content))
    else:
        view.layout.address.pack_into(out, at, len(out))
        view.layout.address.pack_into(out, at + view.layout.address.size, len(content))
        out += content
    return bytes(out)


def mutate_sqlite(data: bytes, rng: random.Random) -> bytes:
    """The header of the file, of a page, a cell's pointer, type or content; pages copied over others."""
    out = bytearray(data)
    if len(out) < 512 or out[:6] != b"SQLite":
        return mutate_bytes(data, rng)
    page = int.from_bytes(out[16:18], "big") or 512
    page = page if 512 <= page <= len(out) else 512
    for _ in range(rng.choice((1, 1, 2, 4))):
        start = rng.randrange(max(1, len(out) // page)) * page
        head = start + 100 * (start == 0)
        kind = rng.randrange(8)
        if kind == 0:
            out[rng.randrange(16, 100)] = rng.randrange(256)
        elif kind == 1 and head + 12 < len(out):  # the b-tree page's header
            out[head + rng.randrange(12)] = rng.choice((0, 1, 2, 5, 10, 13, 255, rng.randrange(256)))
        elif kind == 2 and head + 32 < len(out):  # a pointer to a cell, or to a page
            at = head + 8 + 2 * rng.randrange(12)
            out[at : at + 2] = rng.randrange(page).to_bytes(2, "big")
        elif kind == 3:
            other = rng.randrange(max(1, len(out) // page)) * page
            out[start : start + page] = out[other : other + page]
        elif kind == 4 and rng.random() < 0.2:
            del out[max(512, start) :]
        else:  # the cells stand at the page's end
            at = min(len(out) - 1, start + page - 1 - rng.randrange(page))
            out[at] = rng.choice((0, 1, 2, 8, 12, 13, 0x7F, 0x80, 0xFF, rng.randrange(256), out[at] ^ 1))
    return bytes(out)


def mutate_console(data: bytes, rng: random.Random) -> bytes:
    """A manifest or the log; names from one are put into the other."""
    parts = data.split(SEPARATOR)
    at = rng.randrange(len(parts))
    if at < len(parts) - 1:
        parts[at] = mutate_json(parts[at], rng)
    elif rng.random() < 0.4 and len(parts) > 1:
        try:
            symbols = json.loads(parts[0])["symbols"]
            name = rng.choice(symbols)["name"].encode()
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            name = b"f_SUF"
        place = rng.randrange(len(parts[-1]) + 1)
        ends = (b"", b" ", b"\n", b".", b"+0x1/0x2", b"!", b" [x]", b"\x80")
        parts[-1] = parts[-1][:place] + rng.choice(ends) + name + rng.choice(ends) + parts[-1][place:]
    else:
        parts[-1] = mutate_bytes(parts[-1], rng)
    return SEPARATOR.join(parts)


def mutate_uploads(data: bytes, rng: random.Random) -> bytes:
    """One of the payloads, or their order."""
    head, *parts = data.split(elf.ELFMAG)
    parts = [elf.ELFMAG + part for part in parts]
    if not parts or rng.random() < 0.05:
        return bytes([rng.randrange(32)]) + data[1:]
    at = rng.randrange(len(parts))
    if rng.random() < 0.03:
        parts = [*parts, parts[at]][-3:]
    else:
        parts[at] = mutate_elf(parts[at], rng)
    return head[:1] + b"".join(parts)


def mutate_xensyms(data: bytes, rng: random.Random) -> bytes:
    return mutate_elf(data, rng) if data[:4] == elf.ELFMAG else mutate_bytes(data, rng)


def mutate_answer(data: bytes, rng: random.Random) -> bytes:
    """The head of an HTTP answer, or the manifest in its body."""
    head, end, body = data.partition(b"\r\n\r\n")
    if rng.random() < 0.5 or not body:
        return mutate_bytes(head, rng) + end + body
    try:
        text = zlib.decompress(body)
    except zlib.error:
        return head + end + mutate_bytes(body, rng)
    return head + end + zlib.compress(mutate_json(text, rng))


MUTATORS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "elf": lambda data, rng: data[:1] + mutate_elf(data[1:], rng),
    "manifest": mutate_json,
    "embedded": mutate_embedded,
    "catalog": mutate_sqlite,
    "catalog-add": mutate_sqlite,
    "xensyms": mutate_xensyms,
    "console": mutate_console,
    "uploads": mutate_uploads,
    "debuginfod": mutate_answer,
    "verify": mutate_elf,
    "signature": mutate_bytes,
    "frame": mutate_bytes,
    "relaid": mutate_elf,
}
