"""Random stacks of payloads, each put on the one before, and random ways to mangle them."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from elfbuild import ABS, ALLOC, EXEC, GLOBAL, MERGE, WEAK, WRITE, Sec, Sym, build, build_id, funcs, note, rela

from lpmangle.mangle.options import Options
from theorem.resolver import new_symbols, read

R_X86_64_64 = 1
ENTRY = 104  # struct livepatch_func
# As an address 64 bytes of code apart, so that every distance fits.
HYPERVISOR = (b"xen_extra_version", b"xen_compile_date", b"xen_compiler", b"printk")
LONG = b"long.c#" + b"n" * 119  # 126 bytes, what Xen keeps
NAMES = (
    *(b"a.c#f", b"a.c#g", b"b.c#f", b"f", b"g", b"lp_helper", b"once.3", b"__func__.1804289383"),
    *(b"f_v1", b"a.c#f_v1", b"g_v2", b"f_v1_v2", b"v1", b"f.v2"),
    *(b"s" * 120, LONG, LONG + b"_a", LONG + b"_b", LONG[:-1], b"t" * 140),
    *(b"$d", b".L3", b".LC0"),
)


@dataclass(frozen=True)
class Way:
    """How one payload of a stack is mangled."""

    options: Options
    embed: bool


def random_stack(rng: random.Random, xen_build_id: bytes, *, found: bool = False) -> list[bytes]:
    """The files of two to four payloads, lowest first. With `found`, all names that they borrow exist."""
    stack: list[bytes] = []
    below = xen_build_id
    names: Sequence[bytes] = NAMES[:-3]
    for _ in range(rng.randrange(2, 5)):
        own = rng.randbytes(20)
        if found:
            names = list(dict.fromkeys(name for data in stack for name, _ in new_symbols(read(data), True)))
        stack.append(_payload(rng, own, below, xen_build_id, names))
        below = own
    return stack


def random_way(rng: random.Random) -> Way:
    globs = (b"f*", b"*.c#*", b"lp_*", b"*_v1")
    some = tuple(glob.decode() for glob in rng.sample(globs, rng.choice([0, 0, 1])))
    only = ("*f*", "*n", "lp_*") if rng.random() < 0.1 else ()
    suffix = rng.choice(["buildid"] * 4 + ["buildid:12", "text:v1", "text:v2", "name"])
    template = rng.choice(["{symbol}_{suffix}"] * 5 + ["{symbol}.{suffix}", "{file}#{name}_{suffix}"])
    return Way(Options(suffix, template, only, some, rng.choice(["local", "new"])), rng.random() < 0.3)


def _payload(rng: random.Random, own: bytes, below: bytes, xen: bytes, others: Sequence[bytes]) -> bytes:
    """`others` are names that it may borrow from payloads below."""
    code = Sec(".text.z_code", b"\xc3" * 64, ALLOC | EXEC, align=16)
    sections = [code]
    for number in range(rng.randrange(1, 7)):
        flags = rng.choice([ALLOC | EXEC, ALLOC | EXEC, ALLOC | WRITE, ALLOC, ALLOC | MERGE, 0])
        size = rng.choice([0, 0, 8, 16, 32, 64])
        data = Sec(f".s{number}", bytes(size), flags, align=rng.choice([1, 8, 16, 64, 256]))
        sections.insert(rng.randrange(len(sections) + 1), data)
    named = [_symbol(rng, rng.choice(sections)) for _ in range(rng.randrange(1, 8))]
    undefined = [Sym(name, 0, GLOBAL, 0) for name in rng.sample((*others, *HYPERVISOR), rng.randrange(0, 5))]
    replaces = rng.sample((*others, *HYPERVISOR), rng.choice([0, 1, 1, 2, 3])) or [HYPERVISOR[0]]
    # The code that replaces functions, with a random name.
    targets = [
        Sym(rng.choice(NAMES[:9]), code.name, rng.choice([0, GLOBAL]), 2, 16 * at) for at in range(len(replaces))
    ]
    symbols = [Sym(b"file.c", ABS, type=4), Sym(b"", ".livepatch.strings", type=3), Sym(b"", code.name, type=3)]
    # LOCAL symbols come first (gABI, "Symbol Table").
    symbols += sorted([*named, *targets, *undefined], key=lambda symbol: symbol.bind != 0)
    strings, places = bytearray(b"\0"), []
    for name in replaces:
        places.append(len(strings))
        strings += name + b"\0"
    table = funcs(len(replaces))
    entries = bytearray(table.data)
    for at in range(len(replaces)):
        struct.pack_into("<II", entries, ENTRY * at + 24, 16, 16)
    relocations = []
    for at, (place, target) in enumerate(zip(places, targets, strict=True)):
        by_section = rng.random() < 0.3
        index, addend = (3, target.value) if by_section else (1 + symbols.index(target), 0)
        relocations += [(ENTRY * at, 2, R_X86_64_64, place), (ENTRY * at + 8, index, R_X86_64_64, addend)]
    wanted = [1 + index for index, symbol in enumerate(symbols) if symbol.shndx == 0]
    wanted += [rng.randrange(4, len(symbols) + 1) for _ in range(rng.randrange(0, 4))]
    refs = [(8 * at, index, R_X86_64_64, rng.choice([0, 0, 4])) for at, index in enumerate(wanted)]
    group = []
    local = [1 + index for index, symbol in enumerate(symbols) if symbol in named and symbol.bind == 0]
    if local and rng.random() < 0.15:
        group = [Sec(".group", struct.pack("<I", 1), 0, 17, ".symtab", rng.choice(local), 4, 4)]
    return build(
        [
            *group,
            *sections,
            Sec(".data.refs", bytes(8 * max(1, len(refs))), ALLOC | WRITE, align=8),
            rela(".data.refs", refs),
            Sec(".livepatch.strings", bytes(strings)),
            replace(table, data=bytes(entries)),
            rela(table.name, relocations),
            build_id(own),
            Sec(".livepatch.depends", note(below), type=7, align=4),
            Sec(".livepatch.xen_depends", note(xen), type=7, align=4),
        ],
        symbols,
    ).data


def _symbol(rng: random.Random, section: Sec) -> Sym:
    value = rng.choice([0, len(section.data), 8 * rng.randrange(0, 1 + len(section.data) // 8)])
    return Sym(rng.choice(NAMES), section.name, rng.choice([0, 0, 0, GLOBAL, WEAK]), rng.choice([0, 1, 2]), value)
