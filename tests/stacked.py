"""Payloads that are put on others, made field by field: undefined symbols, functions to replace that Xen looks up."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from elfbuild import ALLOC, GLOBAL, MERGE, TEXT, Built, Sec, Sym, build, build_id, funcs, note, rel32, rela

from lpmangle.mangle.stack import Layer

HELPER, HANDLER = "a.c#helper", "a.c#handler"
XEN = b"\xee" * 20
STRINGS = ".rodata.str1.1"
SHF_STRINGS = 0x20
X86_64, ARM, AARCH64 = 62, 40, 183
ABSOLUTE = {X86_64: 1, ARM: 2, AARCH64: 257}


def stacked(
    number: int,
    depends: bytes,
    *,
    new: Sequence[str] = (),
    undefined: Sequence[str] = (),
    replaces: Sequence[str] = (),
    machine: int = X86_64,
    strings: str = STRINGS,
    last: str = "",
    old_addr: int = 0,
    xen: bytes | None = XEN,
) -> Built:
    """A payload with build-id `number` twenty times.

    `new` are its LOCAL symbols, `undefined` its GLOBAL undefined ones; it `replaces` functions by name. The first
    string of the section `strings` is code's own, and the first function's name; `last` is put behind without a NUL.
    """
    is_64 = machine != ARM
    pointer, texts = (8 if is_64 else 4), bytearray(b"printed\0")
    places = []
    for name in replaces:
        places.append(len(texts))
        texts += name.encode() + b"\0"
    texts += last.encode()
    merged = {"flags": ALLOC | MERGE | SHF_STRINGS, "entsize": 1} if strings == STRINGS else {"flags": ALLOC}
    table = funcs(len(replaces), is_64=is_64)
    size = len(table.data) // max(1, len(replaces))
    data = bytearray(table.data)
    kind, entries = ABSOLUTE[machine], []
    for entry, place in enumerate(places):
        start = entry * size
        struct.pack_into("<II", data, start + 3 * pointer, 16, 16)
        struct.pack_into("<Q" if is_64 else "<I", data, start + 2 * pointer, old_addr)
        if not is_64:
            struct.pack_into("<II", data, start, place, 16 * entry)
        entries += [(start, 1, kind, place), (start + pointer, 2, kind, 16 * entry)]
    sections = [
        replace(TEXT, data=bytes(16 * max(4, len(replaces) + len(new))), align=16),
        Sec(strings, bytes(texts), **merged),
        build_id(bytes([number]) * 20),
        Sec(".livepatch.depends", note(depends), type=7, align=4),
    ]
    if xen is not None:
        sections.append(Sec(".livepatch.xen_depends", note(xen), type=7, align=4))
    if replaces:
        target = replace(table, data=bytes(data))
        relocations = rela(target.name, entries) if is_64 else rel32(target.name, [entry[:3] for entry in entries])
        sections += [target, relocations]
    symbols = [Sym(b"", strings, type=3), Sym(b"", ".text", type=3)]
    symbols += [Sym(name.encode(), value=16 * (len(replaces) + at)) for at, name in enumerate(new)]
    symbols += [Sym(b"replacement_" + bytes([65 + at]), value=16 * at, bind=GLOBAL) for at in range(len(replaces))]
    symbols += [Sym(name.encode(), 0, bind=GLOBAL, type=0) for name in undefined]
    return build(sections, symbols, is_64=is_64, machine=machine)


def ident(number: int) -> bytes:
    """The build-id of payload `number`."""
    return bytes([number]) * 20


def write(folder: Path, **payloads: Built) -> list[Path]:
    """The payloads as NAME.livepatch."""
    paths = [folder / f"{name}.livepatch" for name in payloads]
    for path, payload in zip(paths, payloads.values(), strict=True):
        path.write_bytes(payload.data)
    return paths


def xensyms(path: Path, names: Iterable[str]) -> Path:
    """A copy of /proc/xen/xensyms with these names."""
    path.write_text("".join(f"{0xFFFF82D040200000 + 16 * at:x} T {name}\n" for at, name in enumerate(names)))
    return path


def layer(number: int, *names: str, kept: tuple[str, ...] = ()) -> Layer:
    """The layer of mangled payload `number`: new symbols that were renamed, and those that kept their `names`."""
    suffix = ident(number).hex()
    renames = {name.encode(): f"{name}_{suffix}".encode() for name in names}
    stays = frozenset(name.encode() for name in kept)
    return Layer(f"p{number}", suffix, None, "{symbol}_{suffix}", suffix, renames, stays, f"p{number}.manifest.json")
