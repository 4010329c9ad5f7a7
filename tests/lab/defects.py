"""Single defects (and harmless oddities) for a payload built from payloads/upload.c.

Each is a function of an Editor and a random generator, so that one name means many payloads, for any machine: if it
does not fit a payload, it raises KeyError, or does nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

from lab.editor import Editor

Defect = Callable[[Editor, Random], object]

MAX_SIZE = 2 << 20
FUNCS, DEPENDS = ".livepatch.funcs", ".livepatch.depends"
NOTES = (DEPENDS, ".livepatch.xen_depends", ".note.gnu.build-id")
HOOKS = ("load", "unload", "preapply", "apply", "postapply", "prerevert", "revert", "postrevert")
SPARE = ".note.GNU-stack"  # a section that nothing reads
LOCALS = ("upload.c#helper", "upload.c#calls", "upload.c#other", "lp_data")
# Names in hypervisors; not every one has all of them.
HYPERVISOR = ("printk", "xen_major_version", "domain_create", "common/version.c#build_id_p", "__2M_rwdata_end")


def _hook(size: Callable[[Random], int], kinds: tuple[str, ...] = HOOKS) -> Defect:
    return lambda e, r: e.add(f".livepatch.hooks.{r.choice(kinds)}", bytes(size(r)), flags=3)


def _note(change: Callable[[Editor, str], object]) -> dict[str, Defect]:
    """One for each of the three notes."""

    def defect(section: str) -> Defect:
        return lambda e, r: change(e, section)

    return {section.rpartition(".")[2]: defect(section) for section in NOTES}


X86_64, ARM32 = 62, 40  # e_machine


def _alternative_size(e: Editor) -> int:
    return 14 if e.machine == X86_64 else 12


def alternatives(size: Callable[[int], int], replacement: bool = True) -> Defect:
    def defect(e: Editor, r: Random) -> None:
        e.add(".altinstructions", bytes(size(_alternative_size(e))), align=1)
        if replacement:
            e.add(".altinstr_replacement", b"\x90" * 4, flags=6, align=1)

    return defect


def _no_text(e: Editor, r: Random) -> None:
    e.edit(".text", flags=2).add(".altinstructions", bytes(_alternative_size(e)), align=1)


def good_alternative(
    e: Editor, r: Random, at: int = 0, feature: int | None = None, length: int = 4, new_length: int = 4, pad: int = 0
) -> Editor:
    """Four bytes of the payload's own code, those at `at`, replaced by as many; the replacement is the last code."""
    x86 = e.machine == X86_64
    if feature is None:
        # 0: no CPU lacks it; Arm patches where it has the feature, and takes what it patches for instructions.
        feature = r.randrange(600) if x86 else r.randrange(10)
    entry = struct.pack("<iiHBB", 0, 0, feature, length, new_length) + (struct.pack("<BB", pad, 0) if x86 else b"")
    code = {X86_64: b"\x0f\x1f\x40\x00", ARM32: b"\x00\xf0\x20\xe3"}.get(e.machine, b"\x1f\x20\x03\xd5")  # no operation
    e.add(".altinstr_replacement", code * (1 if new_length <= 4 else new_length // 4 + 1), flags=6, align=4)
    symbol, relative = _section_symbol(e, e.count - 1), e.kinds.relative
    if e.machine == ARM32:  # the addend in place
        entry = struct.pack("<i", at) + entry[4:]
        rows = struct.pack("<II", 0, e.symbol_of(".text") << 8 | relative) + struct.pack(
            "<II", 4, symbol << 8 | relative
        )
    else:
        rows = struct.pack("<QIIq", 0, relative, e.symbol_of(".text"), at) + struct.pack(
            "<QIIq", 4, relative, symbol, 0
        )
    return e.add(".altinstructions", entry, align=4 if e.machine == ARM32 else 1).add_relocations(
        ".altinstructions", rows
    )


def _section_symbol(e: Editor, section: int) -> int:
    """.note.GNU-stack's symbol, made that of another section."""
    number = e.symbol_of(SPARE)
    e.edit_symbol(number, shndx=section)
    return number


def _ignored(e: Editor, r: Random) -> None:
    e.edit_symbol("lp_data", shndx=e.section(SPARE))


def _absolute(e: Editor, r: Random) -> None:
    e.edit_symbol("lp_data", shndx=0xFFF1, value=r.randrange(1 << 20))


def nop(new_size: int, old_size: int) -> Defect:
    """Only delete; then nothing overrides any more, so the replacement needs a name of its own."""

    def defect(e: Editor, r: Random) -> None:
        e.rename("xen_extra_version", "lp_extra_version")
        e.drop_relocation(FUNCS, 1).function(new_size=new_size, old_size=old_size)

    return defect


def _second_function(e: Editor, r: Random) -> None:
    """An entry of its own kind after one that is good."""
    first, at = e.bytes_of(FUNCS), e.format.func["version"][0]
    e.replace(FUNCS, first + first[:at] + bytes([r.choice((0, 1, 3, 255))]) + first[at + 1 :])


def _overlay(e: Editor, r: Random) -> None:
    """Alignment 0: on top of the region's first section, as long as that one."""
    e.add(".overlay", bytes(e.field(".text", "size")), flags=6, align=0)


def strings(e: Editor) -> str:
    """The section with the name of the function to replace."""
    return next(name for name in map(e.name, range(1, e.count)) if name.startswith(".rodata.str"))


def _place(e: Editor, symbol: str) -> dict[str, int]:
    return {"shndx": e.symbol_field(symbol, "shndx"), "value": e.symbol_field(symbol, "value")}


def _code_row(e: Editor, r: Random) -> int:
    return r.randrange(8)


def _where(e: Editor, section: str, short: int) -> int:
    return e.field(section, "size") - short


DEFECTS: dict[str, Defect] = {
    # the file
    "nothing": lambda e, r: None,
    "empty file": lambda e, r: e.data.clear(),
    "2 MiB": lambda e, r: e.data.extend(bytes(MAX_SIZE - len(e.data))),
    "more than 2 MiB": lambda e, r: e.data.extend(bytes(MAX_SIZE + r.choice((1, 77)) - len(e.data))),
    "cut in header": lambda e, r: e.data.__delitem__(slice(r.randrange(1, 64), None)),
    "cut after header": lambda e, r: e.data.__delitem__(slice(r.randrange(64, 1300), None)),
    # header
    "magic": lambda e, r: e.data.__setitem__(r.randrange(4), 0x40),
    "ident version": lambda e, r: e.ident("version", r.choice((0, 2))),
    "ABI version": lambda e, r: e.ident("abiversion", 1),
    "OS": lambda e, r: e.ident("osabi", r.choice((1, 3, 97))),
    "FreeBSD": lambda e, r: e.ident("osabi", 9),
    "32-bit": lambda e, r: e.ident("class", r.choice((0, 1, 3))),
    "byte order": lambda e, r: e.ident("data", r.choice((0, 2))),
    "type": lambda e, r: e.header(e_type=r.choice((0, 2, 3, 4))),
    "machine": lambda e, r: e.header(e_machine=r.choice((3, 40, 183, 0))),
    "version": lambda e, r: e.header(e_version=r.choice((0, 2, 1 << 24))),
    "program headers": lambda e, r: e.header(e_phnum=r.randrange(1, 9)),
    "header size": lambda e, r: e.header(e_ehsize=r.randrange(100)),
    "no section names": lambda e, r: e.header(e_shstrndx=0),
    "1024 sections": lambda e, r: e.header(e_shnum=r.choice((1024, 2000, 65535))),
    "1023 sections": lambda e, r: e.header(e_shnum=r.choice((1023, 200))),
    "section names past": lambda e, r: e.header(e_shstrndx=e.count + r.randrange(3)),
    "no sections": lambda e, r: e.header(e_shnum=0),
    "section table past": lambda e, r: e.header(e_shoff=len(e.data) + r.choice((0, 1, 1 << 40))),
    "section table cut": lambda e, r: e.header(e_shoff=len(e.data) - r.randrange(1, 500)),
    "section header size": lambda e, r: e.header(e_shentsize=r.randrange(64)),
    # sections
    "section in header": lambda e, r: e.edit(r.choice((SPARE, ".bss")), offset=r.randrange(64)),
    "section past end": lambda e, r: e.edit(SPARE, offset=len(e.data) - 5, size=r.randrange(6, 99)),
    "section at end": lambda e, r: e.edit(SPARE, offset=len(e.data) - 5, size=r.randrange(6)),
    "section wraps": lambda e, r: e.edit(SPARE, size=(1 << 64) - 8),
    "zeros past end": lambda e, r: e.edit(".bss", offset=1 << r.randrange(20, 60)),
    "alignment": lambda e, r: e.edit(r.randrange(1, e.count), addralign=r.choice((3, 12, 0x1001, (1 << 64) - 1))),
    "address": lambda e, r: e.edit(r.randrange(1, e.count), addralign=16, addr=r.randrange(1, 16)),
    "any address": lambda e, r: e.edit(SPARE, addralign=r.randrange(2), addr=r.randrange(1, 99)),
    "2 MiB of zeros": lambda e, r: e.edit(".bss", size=MAX_SIZE),
    "more zeros": lambda e, r: e.edit(".bss", size=MAX_SIZE + r.choice((1, 1 << 30)), flags=r.choice((1, 2, 3))),
    "more zeros, not loaded": lambda e, r: e.edit(SPARE, type=8, size=MAX_SIZE + 1, flags=0),
    "two symbol tables": lambda e, r: e.edit(r.choice((SPARE, ".shstrtab")), type=2),
    "symbol table link": lambda e, r: e.edit(".symtab", link=e.count + r.choice((0, 1, 1 << 31))),
    "no symbol table": lambda e, r: e.edit(".symtab", type=r.choice((0, 1, 11))),
    "symbol size": lambda e, r: e.edit(".symtab", entsize=r.choice((0, 8, e.format.sym_size - 1))),
    "symbol table size": lambda e, r: e.edit(".symtab", size=e.field(".symtab", "size") - r.randrange(1, 24)),
    "no symbols": lambda e, r: e.edit(".symtab", size=0),
    "string table type": lambda e, r: e.edit(".symtab", link=r.choice((1, 2, 5, 9))),
    "string table first": lambda e, r: e.byte(".strtab", 0, 65),
    "string table last": lambda e, r: e.byte(".strtab", e.field(".strtab", "size") - 1, 65),
    "string table empty": lambda e, r: e.edit(".strtab", size=0),
    "section names last": lambda e, r: e.byte(".shstrtab", e.field(".shstrtab", "size") - 1, 65),
    "section names type": lambda e, r: e.edit(".shstrtab", type=1),
    "section name": lambda e, r: e.edit(r.randrange(1, e.count), name=e.field(".shstrtab", "size") + r.randrange(9)),
    "symbol name": lambda e, r: e.edit_symbol(
        r.randrange(1, e.symbols), name=e.field(".strtab", "size") + r.randrange(9)
    ),
    "symbol 0": lambda e, r: e.edit_symbol(0, name=0xFFFF, shndx=0xFFF2),
    # placement, symbols
    "writable code": lambda e, r: e.edit(r.choice((".text", ".data", FUNCS)), flags=7),
    "writable code, not loaded": lambda e, r: e.edit(SPARE, flags=5),
    "huge alignment": lambda e, r: e.edit(strings(e), addralign=1 << r.randrange(40, 60)),
    "large alignment": lambda e, r: e.edit(strings(e), addralign=1 << r.randrange(5, 13)),
    "overlay": _overlay,
    "common": lambda e, r: e.edit_symbol(r.choice(LOCALS), shndx=0xFFF2),
    "reserved section": lambda e, r: e.edit_symbol(r.choice(LOCALS), shndx=r.choice((0xFF00, 0xFFF0, 0xFFF3, 0xFFFF))),
    "symbol section": lambda e, r: e.edit_symbol(r.choice(LOCALS), shndx=r.choice((e.count, 0x500, 0xFEFF))),
    "undefined": lambda e, r: e.edit_symbol(r.choice(LOCALS), shndx=0),
    "undefined WEAK": lambda e, r: e.edit_symbol("lp_data", shndx=0, info=0x21),
    "undefined, no name": lambda e, r: e.edit_symbol("lp_data", shndx=0, name=0),
    "undefined, known": lambda e, r: e.edit_symbol("lp_data", shndx=0).rename("lp_data", r.choice(HYPERVISOR)),
    "undefined, bare local": lambda e, r: e.edit_symbol("lp_data", shndx=0).rename("lp_data", "build_id_p"),
    # relocations
    "relocation link": lambda e, r: e.edit(e.relocations_of(".text"), link=r.choice((0, 1, 13, 14, 99, 1 << 31))),
    "relocation for nothing": lambda e, r: e.edit(e.relocations_of(".text"), info=e.count + r.randrange(9)),
    "relocation not loaded": lambda e, r: e.edit(e.relocations_of(".text"), info=e.section(SPARE), link=1),
    "relocation size": lambda e, r: e.edit(
        e.relocations_of(".text"), entsize=r.choice((0, e.format.relocation_size - 8, e.format.relocation_size - 1))
    ),
    "relocation table size": lambda e, r: e.edit(
        e.relocations_of(".text"), size=e.field(e.relocations_of(".text"), "size") - r.randrange(1, 24)
    ),
    "no relocations": lambda e, r: e.edit(e.relocations_of(".text"), size=0, entsize=0),
    "no relocations, wrong link": lambda e, r: e.edit(e.relocations_of(".text"), size=0, link=1),
    "REL": lambda e, r: e.edit(e.relocations_of(".text"), type=13 - e.format.relocation_kind),
    "REL, too small": lambda e, r: e.edit(e.relocations_of(".text"), type=13 - e.format.relocation_kind, entsize=8),
    "relocation to 0": lambda e, r: e.relocation(".text", _code_row(e, r), symbol=0, type=r.choice((0, 2, 99))),
    "relocation to 0, NONE": lambda e, r: e.relocation(".text", 0, symbol=0, type=0),
    "relocation symbol": lambda e, r: e.relocation(".text", _code_row(e, r), symbol=e.symbols + r.choice((0, 1 << 20))),
    "relocation type": lambda e, r: e.relocation(".text", _code_row(e, r), type=r.choice(e.kinds.unknown)),
    "relocation NONE": lambda e, r: e.relocation(".text", _code_row(e, r), type=0, offset=r.randrange(1 << 40)),
    "relocation offset": lambda e, r: e.relocation(
        ".text",
        _code_row(e, r),
        type=r.choice((e.kinds.relative, *e.kinds.others)),
        offset=_where(e, ".text", r.choice((3, 2, 1, 0, -1, -(1 << 40)))),
    ),
    "relocation last": lambda e, r: e.relocation(".text", 0, offset=_where(e, ".text", 4)),
    "relocation offset, pointer": lambda e, r: e.relocation(
        ".text", _code_row(e, r), type=e.kinds.pointer, offset=_where(e, ".text", r.randrange(8))
    ),
    "relocation last, pointer": lambda e, r: e.relocation(
        ".text", 0, type=e.kinds.pointer, offset=_where(e, ".text", e.format.pointer)
    ),
    "relocation overflow": lambda e, r: e.relocation(
        ".text", _code_row(e, r), addend=r.choice((1 << 31, -(1 << 31) - 9999999, 1 << 40, -(1 << 62)))
    ),
    "relocation ignored": _ignored,
    "relocation absolute": _absolute,
    # special sections
    **{f"{n}: missing": d for n, d in _note(lambda e, s: e.edit(s, name=0)).items()},
    **{f"{n}: empty": d for n, d in _note(lambda e, s: e.edit(s, size=0)).items()},
    **{f"{n}: short": d for n, d in _note(lambda e, s: e.edit(s, size=12)).items()},
    **{f"{n}: cut": d for n, d in _note(lambda e, s: e.edit(s, size=35)).items()},
    **{f"{n}: type": d for n, d in _note(lambda e, s: e.word(s, 8, 4)).items()},
    **{f"{n}: name size": d for n, d in _note(lambda e, s: e.word(s, 0, 3)).items()},
    **{f"{n}: long name": d for n, d in _note(lambda e, s: e.word(s, 0, 5).word(s, 4, 15)).items()},
    **{f"{n}: wraps": d for n, d in _note(lambda e, s: e.word(s, 4, 0xFFFFFFFF)).items()},
    **{f"{n}: no build-id": d for n, d in _note(lambda e, s: e.word(s, 4, 0)).items()},
    **{f"{n}: short build-id": d for n, d in _note(lambda e, s: e.word(s, 4, 8)).items()},
    **{f"{n}: name": d for n, d in _note(lambda e, s: e.byte(s, 13, 88)).items()},
    **{f"{n}: other": d for n, d in _note(lambda e, s: e.byte(s, 20, 0x5A)).items()},
    "no notes": lambda e, r: [e.edit(section, name=0) for section in NOTES],
    "nothing to patch": lambda e, r: e.edit(FUNCS, name=0),
    "no functions": lambda e, r: e.edit(FUNCS, size=0).edit(e.relocations_of(FUNCS), size=0),
    "functions size": lambda e, r: e.edit(FUNCS, size=e.format.func_size - r.choice((16, 1))),
    "empty hook": _hook(lambda r: 0),
    "hook size": _hook(lambda r: r.choice((4, 7, 12))),
    "two hooks": _hook(lambda r: 16, HOOKS[2:]),
    "three hooks": _hook(lambda r: 24, HOOKS[2:]),
    "two load hooks": _hook(lambda r: 16, HOOKS[:2]),
    "good hook": lambda e, r: e.add(f".livepatch.hooks.{r.choice(HOOKS)}", bytes(e.format.pointer), flags=3),
    # functions
    "function version": lambda e, r: e.function(version=r.choice((0, 1, 3, 255)), old_size=r.choice((0, 12))),
    "function size 0": lambda e, r: e.function(old_size=0),
    "function too short": lambda e, r: e.function(old_size=r.randrange(1, 5)),
    "function just long enough": lambda e, r: e.function(old_size=5),
    "function unknown": lambda e, r: e.data.__setitem__(
        e.data.index(b"xen_extra_version\0", e.content(strings(e))), r.choice(b"XABC_")
    ),
    "function too far": lambda e, r: e.drop_relocation(FUNCS, 1).function(new_addr=r.choice((1, 1 << 20, 1 << 63))),
    "second function": _second_function,
    "delete 31": nop(31, 31),
    "delete 32": nop(32, 64),
    "delete more than there is": nop(8, 7),
    "delete nothing": nop(0, 1),
    # optional sections
    "bug frames": lambda e, r: e.add(f".bug_frames.{r.randrange(4)}", bytes(r.choice((4, 12)))),
    "bug frames of no kind": lambda e, r: e.add(".bug_frames.4", bytes(4)),
    "no bug frames": lambda e, r: e.add(f".bug_frames.{r.randrange(4)}", b""),
    "exceptions": lambda e, r: e.add(".ex_table", bytes(r.choice((4, 20)))),
    "no exceptions": lambda e, r: e.add(".ex_table", b""),
    "alternatives size": alternatives(lambda size: size - 1),
    "no alternatives": alternatives(lambda size: 0),
    "no replacement": alternatives(lambda size: size, replacement=False),
    "alternatives, no code": _no_text,
    "alternative of no code": alternatives(lambda size: size),
    "replacement too short": lambda e, r: good_alternative(e, r).edit(".altinstr_replacement", size=3),
    "good alternative": good_alternative,
    "alternative of the last code": lambda e, r: good_alternative(e, r, _where(e, ".text", 0)),
    "alternative past the code": lambda e, r: good_alternative(e, r, _where(e, ".text", -r.randrange(1, 4))),
    "modinfo": lambda e, r: e.add(".modinfo", b"a=b\0c=d\0"),
    "modinfo, no end": lambda e, r: e.add(".modinfo", b"a=b\0c"),
    # names
    "name of the hypervisor": lambda e, r: e.rename(r.choice(LOCALS), r.choice(HYPERVISOR)),
    "nearly one": lambda e, r: e.rename(r.choice(LOCALS), r.choice(("Printk", "version.c#build_id_p", "printk "))),
    "long name": lambda e, r: e.rename(r.choice(LOCALS), "n" * r.choice((125, 126, 127, 700))),
    "same name twice": lambda e, r: e.rename("upload.c#calls", "upload.c#helper"),
    "overriding, known name": lambda e, r: e.rename("xen_extra_version", r.choice(HYPERVISOR)),
    "not overriding, its name": lambda e, r: e.relocation(FUNCS, 1, addend=r.randrange(1, 9)),
    "at the same address": lambda e, r: e.edit_symbol("lp_data", **_place(e, "xen_extra_version")).rename(
        "lp_data", "printk"
    ),
    ".L in a merged section": lambda e, r: e.rename("lp_data", ".Lx").edit_symbol(".Lx", shndx=e.section(strings(e))),
    "in no section": lambda e, r: e.edit_symbol("upload.c#calls", shndx=e.section(SPARE)).rename(
        "upload.c#calls", "printk"
    ),
}
