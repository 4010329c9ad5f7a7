"""What each difference between hypervisors, and each crash, is asked with: one payload each, beside the random ones."""

from __future__ import annotations

from random import Random

from lab.defects import (
    ARM32,
    FUNCS,
    HOOKS,
    LOCALS,
    MAX_SIZE,
    NOTES,
    SPARE,
    X86_64,
    Defect,
    alternatives,
    good_alternative,
    nop,
    strings,
)
from lab.editor import Editor


def targeted(machine: int, endbr: str, init: str) -> dict[str, Defect]:
    """By name, for an e_machine. `endbr` begins with ENDBR64, `init` is gone once the hypervisor has booted."""
    found = {**EVERYWHERE, **(ON_X86 if machine == X86_64 else ON_ARM)}
    if machine == ARM32:
        found |= ON_ARM32
    if init:  # Xen reads the old code only where it wants to know whether that begins with ENDBR64
        found |= {"crash: a function in init memory": _old_function(init, 12)}
    if endbr:
        found |= {f"ENDBR64, {size} bytes": _old_function(endbr, size) for size in (4, 5, 8, 9, 12)}
    return found


def _named(name: str) -> Defect:
    return lambda e, r: e.rename(r.choice(LOCALS), name)


def _flags(flags: int) -> Defect:
    return lambda e, r: e.header(e_flags=flags)


def _feature(feature: int) -> Defect:
    return lambda e, r: good_alternative(e, r, feature=feature)


# A feature that is there wherever live patching is (asm/cpufeature.h of Arm): code is replaced for sure.
LIVEPATCH_FEATURE = 4


def _lengths(length: int, new_length: int, pad: int = 0, feature: int | None = None) -> Defect:
    def defect(e: Editor, r: Random) -> None:
        present = feature if e.machine == X86_64 else LIVEPATCH_FEATURE
        good_alternative(e, r, length=length, new_length=new_length, pad=pad, feature=present)

    return defect


def _added(section: str, size: int) -> Defect:
    return lambda e, r: e.add(section, bytes(size))


def _alternatives_of(size: int) -> Defect:
    return alternatives(lambda _: size)


def _not_loaded(section: str) -> Defect:
    return lambda e, r: e.edit(section, flags=0)


def _empty_before(flags: int) -> Defect:
    """A symbol in an empty section that stands before another one; code refers to it."""

    def defect(e: Editor, r: Random) -> None:
        e.add(".before", b"", flags=flags, align=64)
        e.edit_symbol("lp_data", shndx=e.count - 1, value=0)

    return defect


def replace_function(e: Editor, name: str, old_size: int) -> Editor:
    """Another function to replace: its name is in a section of its own."""
    e.add(".livepatch.strings", name.encode() + b"\0")
    number = e.symbol_of(SPARE)
    e.edit_symbol(number, shndx=e.count - 1).relocation(FUNCS, 0, symbol=number, addend=0)
    return e.function(old_size=old_size)


def _old_function(name: str, old_size: int) -> Defect:
    return lambda e, r: replace_function(e, name, old_size)


def _wrap(e: Editor, section: str) -> Editor:
    """So many bytes that the section ends early in the file, behind a NUL: the sum wraps around."""
    size = (1 << 64) - e.content(section) + 10
    return e.edit(section, size=size + -size % max(e.field(section, "entsize"), 1))


EVERYWHERE: dict[str, Defect] = {
    **{f"a symbol called {name}": _named(name) for name in (".text", ".bss", ".rodata", ".init.text", ".data")},
    "a symbol in an empty section": _empty_before(3),
    "a symbol in an empty section of code": _empty_before(6),
    "a symbol in an empty section that is not loaded": _empty_before(0),
    "unknown function, too short": _old_function("lp_unknown", 3),
    **{f"bug frames {kind}": _added(f".bug_frames.{kind}", 4) for kind in range(5)},
    "alternative calls, wrong size": lambda e, r: e.add(".alt_call_sites", bytes(5), align=4),
    "alternative calls, outside": lambda e, r: e.add(".alt_call_sites", bytes(4), align=4),
    "replacement longer": _lengths(4, 8),
    "replacement shorter": _lengths(8, 4),
    "read-only functions": lambda e, r: e.edit(FUNCS, flags=2),
    "two unknown symbols": lambda e, r: e.edit_symbol(LOCALS[0], shndx=0).edit_symbol(LOCALS[2], shndx=0),
    "other xen_depends": lambda e, r: e.build_id(b"\x5a" * 20, ".livepatch.xen_depends"),
    "other xen_depends, unknown symbol": lambda e, r: e.build_id(b"\x5a" * 20, ".livepatch.xen_depends").edit_symbol(
        "lp_data", shndx=0
    ),
    "short xen_depends": lambda e, r: e.word(".livepatch.xen_depends", 4, 8),
    # What takes a hypervisor down
    "crash: symbol table without strings": lambda e, r: e.edit(".symtab", link=0),
    "crash: symbol table of 2^64 bytes": lambda e, r: e.edit(".symtab", size=(1 << 64) // 24 * 24),
    "names of nearly 2^64 bytes": lambda e, r: _wrap(e, ".strtab"),
    "names of sections of nearly 2^64 bytes": lambda e, r: _wrap(e, ".shstrtab"),
    "relocations of nearly 2^64 bytes": lambda e, r: _wrap(e, e.relocations_of(".text")),
    "crash: relocations for section 0": lambda e, r: e.edit(e.relocations_of(".text"), info=0),
    **{f"crash: {name} not loaded": _not_loaded(name) for name in (*NOTES, FUNCS)},
    "crash: hook not loaded": lambda e, r: e.add(f".livepatch.hooks.{HOOKS[3]}", bytes(e.format.pointer), flags=0),
    "crash: alternatives not loaded": lambda e, r: good_alternative(e, r).edit(".altinstructions", flags=0),
    "crash: exceptions not loaded": lambda e, r: e.add(".ex_table", bytes(8), flags=0),
    "crash: empty modinfo": lambda e, r: e.add(".modinfo", b""),
    "crash: modinfo not loaded": lambda e, r: e.add(".modinfo", b"a=b\0", flags=0),
    "crash: no function name": lambda e, r: e.drop_relocation(FUNCS, 0) if e.kinds.none is not None else None,
    "crash: wild old address": lambda e, r: e.function(old_addr=0x10),
    "crash: code of nearly 2^64 bytes": lambda e, r: e.edit(".text", size=(1 << 64) - 1),
    "crash: a section behind its region": lambda e, r: e.add(".big", bytes(0x2000)).add(".over", b"1", align=0),
}

# Around each number of feature words that some version has; above it is unknown. Bit 15: NOT, in newer versions.
_WORDS = range(13, 24)
_FEATURES = [*(32 * words + below for words in _WORDS for below in (-1, 0)), 0x7FFF, 0x8005, 0x8000 + 32 * 24]
ON_X86: dict[str, Defect] = {
    "crash: a name far outside": lambda e, r: _wrap(e, ".strtab").edit_symbol("lp_data", name=0xF0000000),
    **{f"alternative, feature {feature:#x}": _feature(feature) for feature in _FEATURES},
    "alternative, 254 bytes": _lengths(4, 4, 250, 3),
    "alternative, 255 bytes": _lengths(4, 4, 251, 3),
    "alternative, replacement longer, bad feature": _lengths(4, 8, feature=0x7FFF),
    "delete 3 bytes": nop(3, 12),
    "delete 4 bytes": nop(4, 12),
}

_ADDENDS = (
    0, 1, 4, -4, 0x7FFF, 0x8000, 0xFFFF, 0x10000, -0x8000, -0x8001, 1 << 20, (1 << 20) - 1, -(1 << 20), 1 << 25,
    -(1 << 25), (1 << 27) - 1, 1 << 27, -(1 << 27), 1 << 28, 1 << 31, -(1 << 31), 1 << 32, -(1 << 32), 1 << 33, 1 << 48,
)  # fmt: skip


def _bss(size: int) -> Defect:
    return lambda e, r: e.edit(".bss", size=size, flags=3)


def _kind(n: int) -> Defect:
    def defect(e: Editor, r: Random) -> None:
        kinds = (e.kinds.relative, e.kinds.pointer, *e.kinds.others)
        e.relocation(".text", r.randrange(8), type=kinds[n % len(kinds)], addend=r.choice(_ADDENDS))

    return defect


ON_ARM: dict[str, Defect] = {
    **{f"relocation kind {n}": _kind(n) for n in range(48)},
    "mapping symbol": lambda e, r: e.rename(r.choice(LOCALS), r.choice(("$x", "$d", "$x.1", "$d.foo"))),
    **{f"no mapping symbol {name}": _named(name) for name in ("$", "$xa", "$t", "$t.1", "$a", "$a.5", "$X")},
    "two that are no mapping symbols": lambda e, r: e.rename(LOCALS[0], "$t").rename(LOCALS[1], "$t"),
    "unaligned relocation": lambda e, r: e.relocation(
        ".text", r.randrange(8), offset=e.field(".text", "size") - r.choice((5, 6, 7, 9))
    ),
    "big endian": lambda e, r: e.ident("data", 2),
    "EABI flags": lambda e, r: e.header(e_flags=r.choice((0, 0x05000000, 0xFFFFFFFF))),
    **{
        f"delete {size} of {old}": nop(size, old)
        for size, old in ((5, 12), (4, 12), (4, 3), (28, 28), (32, 32), (0, 4))
    },
    "function of 3 bytes": lambda e, r: e.function(old_size=3),
    "function of 4 bytes": lambda e, r: e.function(old_size=4),
    **{
        f"bug frames {kind} of {size} bytes": _added(f".bug_frames.{kind}", size)
        for kind in range(5)
        for size in (12, 16, 24)
    },
    **{f"alternatives of {size} bytes": _alternatives_of(size) for size in (4, 11, 12, 14, 24)},
    **{f"exceptions of {size} bytes": _added(".ex_table", size) for size in (0, 8, 16)},
    **{
        f"zeros of {size:#x} bytes": _bss(size)
        for size in (1 << 20, MAX_SIZE - 8192, MAX_SIZE - 4096, MAX_SIZE, MAX_SIZE + 1)
    },
    **{f"alternative, feature {feature}": _feature(feature) for feature in (0, 1, 9, 14, 15, 17, 18, 19, 600, 0x8000)},
}

ON_ARM32: dict[str, Defect] = {
    **{f"e_flags {flags:#x}": _flags(flags) for flags in (0, 0x04000000, 0x05000400)},
    **{f"thumb symbol {name}": _named(name) for name in ("$t", "$t.1", "$tx")},
    "relocation outside": lambda e, r: e.relocation(
        ".text", r.randrange(8), type=r.choice((0, 2, 3)), offset=e.field(".text", "size") + 4 * r.randrange(4)
    ),
    "crash: relocation far outside": lambda e, r: e.relocation(
        ".text", r.randrange(8), type=r.choice((2, 3)), offset=1 << 28
    ),
    "odd bytes before the notes": lambda e, r: [
        e.edit(strings(e), size=e.field(strings(e), "size") - 1),
        *(e.edit(note, addralign=1) for note in NOTES),
    ],
    "crash: relocation at an odd place": lambda e, r: e.relocation(FUNCS, r.randrange(2), offset=r.choice((1, 2, 3))),
    "crash: symbols at an odd place": lambda e, r: e.edit(".symtab", entsize=18),
}
