"""Single defects (and harmless oddities) for a payload built from payloads/upload.c.

Each is a function of an Editor and a source of random numbers, so that one name stands for many payloads. None of them
takes a hypervisor down; `check` tells those that would apart, and its unit tests know them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

from xen.editor import EHDR, HEADER, Editor

Defect = Callable[[Editor, Random], object]

MAX_SIZE = 2 << 20
CODE, FUNCS, DEPENDS = ".rela.text", ".livepatch.funcs", ".livepatch.depends"
NOTES = (DEPENDS, ".livepatch.xen_depends", ".note.gnu.build-id")
HOOKS = ("load", "unload", "preapply", "apply", "postapply", "prerevert", "revert", "postrevert")
SPARE = ".note.GNU-stack"  # a section that nobody looks at
LOCALS = ("upload.c#helper", "upload.c#calls", "upload.c#other", "lp_data")
HYPERVISOR = ("printk", "xen_major_version", "domain_create", "common/version.c#build_id_p", "__2M_rwdata_end")


def _hook(size: Callable[[Random], int], kinds: tuple[str, ...] = HOOKS) -> Defect:
    return lambda e, r: e.add(f".livepatch.hooks.{r.choice(kinds)}", bytes(size(r)), flags=3)


def _note(change: Callable[[Editor, str], object]) -> dict[str, Defect]:
    """One for each of the three notes."""

    def defect(section: str) -> Defect:
        return lambda e, r: change(e, section)

    return {section.rpartition(".")[2]: defect(section) for section in NOTES}


def _alternative(entry: bytes, replacement: bytes | None = b"\x90" * 4) -> Defect:
    def defect(e: Editor, r: Random) -> None:
        e.add(".altinstructions", entry, align=1)
        if replacement is not None:
            e.add(".altinstr_replacement", replacement, flags=6, align=1)

    return defect


def _no_text(e: Editor, r: Random) -> None:
    e.edit(".text", flags=2).add(".altinstructions", bytes(14), align=1)


def good_alternative(e: Editor, r: Random, at: int = 0) -> Editor:
    """Four bytes of the payload's own code, those at `at`, replaced by as many; the replacement is the last code."""
    e.add(".altinstructions", struct.pack("<iiHBBBB", 0, 0, r.randrange(600), 4, 4, 0, 0), align=1)
    number = e.count - 1
    e.add(".altinstr_replacement", b"\x0f\x1f\x40\x00", flags=6, align=1)
    section = struct.pack("<QIIq", 0, 2, 2, at) + struct.pack("<QIIq", 4, 2, _section_symbol(e, e.count - 1), 0)
    e.add(".rela.altinstructions", section, flags=0, kind=4)
    return e.edit(e.count - 1, link=e.section(".symtab"), info=number, entsize=24)


def _section_symbol(e: Editor, section: int) -> int:
    """.note.GNU-stack's symbol, made that of another section."""
    e.edit_symbol(7, shndx=section)
    return 7


def _ignored(e: Editor, r: Random) -> None:
    e.edit_symbol("lp_data", shndx=e.section(SPARE))


def _absolute(e: Editor, r: Random) -> None:
    e.edit_symbol("lp_data", shndx=0xFFF1, value=r.randrange(1 << 20))


def _nop(new_size: int, old_size: int) -> Defect:
    """Only delete; then nothing overrides any more, so the replacement needs a name of its own."""

    def defect(e: Editor, r: Random) -> None:
        e.rename("xen_extra_version", "lp_extra_version").relocation(".rela" + FUNCS, 1, type=0)
        e.function(new_size=new_size, old_size=old_size)

    return defect


def _second_function(e: Editor, r: Random) -> None:
    """An entry of its own kind after one that is good."""
    at, size = e.content(FUNCS), 104
    first = bytes(e.data[at : at + size])
    start = len(e.data)
    e.data += first + first[:32] + bytes([r.choice((0, 1, 3, 255))]) + first[33:]
    e.edit(FUNCS, offset=start, size=2 * size)


def _overlay(e: Editor, r: Random) -> None:
    """Alignment 0: on top of the region's first section, as long as that one."""
    e.add(".overlay", bytes(e.field(".text", "size")), flags=6, align=0)


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
    "ident version": lambda e, r: e.put({"x": (HEADER["version"], "B")}, x=r.choice((0, 2))),
    "ABI version": lambda e, r: e.put({"x": (HEADER["abiversion"], "B")}, x=1),
    "OS": lambda e, r: e.put({"x": (HEADER["osabi"], "B")}, x=r.choice((1, 3, 97))),
    "FreeBSD": lambda e, r: e.put({"x": (HEADER["osabi"], "B")}, x=9),
    "32-bit": lambda e, r: e.put({"x": (HEADER["class"], "B")}, x=r.choice((0, 1, 3))),
    "byte order": lambda e, r: e.put({"x": (HEADER["data"], "B")}, x=r.choice((0, 2))),
    "type": lambda e, r: e.put(EHDR, e_type=r.choice((0, 2, 3, 4))),
    "machine": lambda e, r: e.put(EHDR, e_machine=r.choice((3, 40, 183, 0))),
    "version": lambda e, r: e.put(EHDR, e_version=r.choice((0, 2, 1 << 24))),
    "program headers": lambda e, r: e.put(EHDR, e_phnum=r.randrange(1, 9)),
    "header size": lambda e, r: e.put(EHDR, e_ehsize=r.randrange(100)),
    "no section names": lambda e, r: e.put(EHDR, e_shstrndx=0),
    "1024 sections": lambda e, r: e.put(EHDR, e_shnum=r.choice((1024, 2000, 65535))),
    "1023 sections": lambda e, r: e.put(EHDR, e_shnum=r.choice((1023, 200))),
    "section names past": lambda e, r: e.put(EHDR, e_shstrndx=e.count + r.randrange(3)),
    "no sections": lambda e, r: e.put(EHDR, e_shnum=0),
    "section table past": lambda e, r: e.put(EHDR, e_shoff=len(e.data) + r.choice((0, 1, 1 << 40))),
    "section table cut": lambda e, r: e.put(EHDR, e_shoff=len(e.data) - r.randrange(1, 500)),
    "section header size": lambda e, r: e.put(EHDR, e_shentsize=r.randrange(64)),
    # sections
    "section in header": lambda e, r: e.edit(r.choice((SPARE, ".bss")), offset=r.randrange(64)),
    "section past end": lambda e, r: e.edit(SPARE, offset=len(e.data) - 5, size=r.randrange(6, 99)),
    "section at end": lambda e, r: e.edit(SPARE, offset=len(e.data) - 5, size=r.randrange(6)),
    "section wraps": lambda e, r: e.edit(SPARE, size=(1 << 64) - 8),
    "zeros past end": lambda e, r: e.edit(".bss", offset=1 << r.randrange(20, 60)),
    "alignment": lambda e, r: e.edit(r.randrange(1, 15), addralign=r.choice((3, 12, 0x1001, (1 << 64) - 1))),
    "address": lambda e, r: e.edit(r.randrange(1, 15), addralign=16, addr=r.randrange(1, 16)),
    "any address": lambda e, r: e.edit(SPARE, addralign=r.randrange(2), addr=r.randrange(1, 99)),
    "2 MiB of zeros": lambda e, r: e.edit(".bss", size=MAX_SIZE),
    "more zeros": lambda e, r: e.edit(".bss", size=MAX_SIZE + r.choice((1, 1 << 30)), flags=r.choice((1, 2, 3))),
    "more zeros, not loaded": lambda e, r: e.edit(SPARE, type=8, size=MAX_SIZE + 1, flags=0),
    "two symbol tables": lambda e, r: e.edit(r.choice((SPARE, ".shstrtab")), type=2),
    "symbol table link": lambda e, r: e.edit(".symtab", link=e.count + r.choice((0, 1, 1 << 31))),
    "no symbol table": lambda e, r: e.edit(".symtab", type=r.choice((0, 1, 11))),
    "symbol size": lambda e, r: e.edit(".symtab", entsize=r.choice((0, 16, 23))),
    "symbol table size": lambda e, r: e.edit(".symtab", size=e.field(".symtab", "size") - r.randrange(1, 24)),
    "no symbols": lambda e, r: e.edit(".symtab", size=0),
    "string table type": lambda e, r: e.edit(".symtab", link=r.choice((1, 2, 5, 9))),
    "string table first": lambda e, r: e.byte(".strtab", 0, 65),
    "string table last": lambda e, r: e.byte(".strtab", e.field(".strtab", "size") - 1, 65),
    "string table empty": lambda e, r: e.edit(".strtab", size=0),
    "section names last": lambda e, r: e.byte(".shstrtab", e.field(".shstrtab", "size") - 1, 65),
    "section names type": lambda e, r: e.edit(".shstrtab", type=1),
    "section name": lambda e, r: e.edit(r.randrange(1, 15), name=e.field(".shstrtab", "size") + r.randrange(9)),
    "symbol name": lambda e, r: e.edit_symbol(r.randrange(1, 17), name=e.field(".strtab", "size") + r.randrange(9)),
    "symbol 0": lambda e, r: e.edit_symbol(0, name=0xFFFF, shndx=0xFFF2),
    # placement, symbols
    "writable code": lambda e, r: e.edit(r.choice((".text", ".data", FUNCS)), flags=7),
    "writable code, not loaded": lambda e, r: e.edit(SPARE, flags=5),
    "huge alignment": lambda e, r: e.edit(".rodata.str1.1", addralign=1 << r.randrange(40, 60)),
    "large alignment": lambda e, r: e.edit(".rodata.str1.1", addralign=1 << r.randrange(5, 13)),
    "overlay": _overlay,
    "common": lambda e, r: e.edit_symbol(r.choice(LOCALS), shndx=0xFFF2),
    "reserved section": lambda e, r: e.edit_symbol(r.choice(LOCALS), shndx=r.choice((0xFF00, 0xFFF0, 0xFFF3, 0xFFFF))),
    "symbol section": lambda e, r: e.edit_symbol(r.choice(LOCALS), shndx=r.choice((e.count, 0x500, 0xFEFF))),
    "undefined": lambda e, r: e.edit_symbol(r.choice(LOCALS), shndx=0),
    "undefined WEAK": lambda e, r: e.edit_symbol("lp_data", shndx=0, info=0x21),
    "undefined, no name": lambda e, r: e.edit_symbol("lp_data", shndx=0, name=0),
    "undefined, known": lambda e, r: e.rename("lp_data", r.choice(HYPERVISOR)).edit_symbol(15, shndx=0),
    "undefined, bare local": lambda e, r: e.rename("lp_data", "build_id_p").edit_symbol(15, shndx=0),
    # relocations
    "relocation link": lambda e, r: e.edit(CODE, link=r.choice((0, 1, 13, 14, 99, 1 << 31))),
    "relocation for nothing": lambda e, r: e.edit(CODE, info=e.count + r.randrange(9)),
    "relocation not loaded": lambda e, r: e.edit(CODE, info=e.section(SPARE), link=1),
    "relocation size": lambda e, r: e.edit(CODE, entsize=r.choice((0, 16, 23))),
    "relocation table size": lambda e, r: e.edit(CODE, size=e.field(CODE, "size") - r.randrange(1, 24)),
    "no relocations": lambda e, r: e.edit(CODE, size=0, entsize=0),
    "no relocations, wrong link": lambda e, r: e.edit(CODE, size=0, link=1),
    "REL": lambda e, r: e.edit(CODE, type=9),
    "REL, too small": lambda e, r: e.edit(CODE, type=9, entsize=8),
    "relocation to 0": lambda e, r: e.relocation(CODE, _code_row(e, r), symbol=0, type=r.choice((0, 2, 99))),
    "relocation to 0, NONE": lambda e, r: e.relocation(CODE, 0, symbol=0, type=0),
    "relocation symbol": lambda e, r: e.relocation(CODE, _code_row(e, r), symbol=e.symbols + r.choice((0, 1 << 20))),
    "relocation type": lambda e, r: e.relocation(
        CODE, _code_row(e, r), type=r.choice((3, 9, 10, 11, 24, 41, 42, 0xFFFFFFFF))
    ),
    "relocation NONE": lambda e, r: e.relocation(CODE, _code_row(e, r), type=0, offset=r.randrange(1 << 40)),
    "relocation offset": lambda e, r: e.relocation(
        CODE, _code_row(e, r), type=r.choice((2, 4)), offset=_where(e, ".text", r.choice((3, 2, 1, 0, -1, -(1 << 40))))
    ),
    "relocation last": lambda e, r: e.relocation(CODE, 0, offset=_where(e, ".text", 4)),
    "relocation offset, 64": lambda e, r: e.relocation(
        CODE, _code_row(e, r), type=1, offset=_where(e, ".text", r.randrange(8))
    ),
    "relocation last, 64": lambda e, r: e.relocation(CODE, 0, type=1, offset=_where(e, ".text", 8)),
    "relocation overflow": lambda e, r: e.relocation(
        CODE, _code_row(e, r), addend=r.choice((1 << 31, -(1 << 31) - 9999999, 1 << 40, -(1 << 62)))
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
    "no functions": lambda e, r: e.edit(FUNCS, size=0).edit(".rela" + FUNCS, size=0),
    "functions size": lambda e, r: e.edit(FUNCS, size=r.choice((88, 103))),
    "empty hook": _hook(lambda r: 0),
    "hook size": _hook(lambda r: r.choice((4, 7, 12))),
    "two hooks": _hook(lambda r: 16, HOOKS[2:]),
    "three hooks": _hook(lambda r: 24, HOOKS[2:]),
    "two load hooks": _hook(lambda r: 16, HOOKS[:2]),
    "good hook": _hook(lambda r: 8),
    # functions
    "function version": lambda e, r: e.function(version=r.choice((0, 1, 3, 255)), old_size=r.choice((0, 12))),
    "function size 0": lambda e, r: e.function(old_size=0),
    "function too short": lambda e, r: e.function(old_size=r.randrange(1, 5)),
    "function just long enough": lambda e, r: e.function(old_size=5),
    "function unknown": lambda e, r: e.byte(".rodata.str1.1", 15, r.choice(b"XABC_")),
    "function too far": lambda e, r: (
        e.relocation(".rela" + FUNCS, 1, type=0) and e.function(new_addr=r.choice((1, 1 << 20, 1 << 63)))
    ),
    "second function": _second_function,
    "delete 31": _nop(31, 31),
    "delete 32": _nop(32, 64),
    "delete more than there is": _nop(8, 7),
    "delete nothing": _nop(0, 1),
    # optional sections
    "bug frames": lambda e, r: e.add(f".bug_frames.{r.randrange(4)}", bytes(r.choice((4, 12)))),
    "bug frames of no kind": lambda e, r: e.add(".bug_frames.4", bytes(4)),
    "no bug frames": lambda e, r: e.add(f".bug_frames.{r.randrange(4)}", b""),
    "exceptions": lambda e, r: e.add(".ex_table", bytes(r.choice((4, 20)))),
    "no exceptions": lambda e, r: e.add(".ex_table", b""),
    "alternatives size": _alternative(bytes(13)),
    "no alternatives": _alternative(b""),
    "no replacement": _alternative(bytes(14), None),
    "alternatives, no code": _no_text,
    "alternative of no code": _alternative(bytes(14)),
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
    "not overriding, its name": lambda e, r: e.relocation(".rela" + FUNCS, 1, addend=r.randrange(1, 9)),
    "at the same address": lambda e, r: e.rename("lp_data", "printk").edit_symbol(15, shndx=2, value=0x30),
    ".L in a merged section": lambda e, r: e.rename("lp_data", ".Lx").edit_symbol(".Lx", shndx=4),
    "in no section": lambda e, r: e.rename("upload.c#calls", "printk").edit_symbol(10, shndx=e.section(SPARE)),
}
