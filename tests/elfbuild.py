"""Small relocatable ELF files made field by field, for tests that need one exact shape or one wrong field.

Written from the ELF specification without code of lpmangle, so that each can check the other.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace

EHDR = (
    "e_ident e_type e_machine e_version e_entry e_phoff e_shoff e_flags e_ehsize e_phentsize e_phnum e_shentsize "
    "e_shnum e_shstrndx"
)
SHDR = "sh_name sh_type sh_flags sh_addr sh_offset sh_size sh_link sh_info sh_addralign sh_entsize"
SYM64 = "st_name st_info st_other st_shndx st_value st_size"
SYM32 = "st_name st_value st_size st_info st_other st_shndx"
FORMATS = {
    (True, "ehdr"): ("16sHHIQQQIHHHHHH", EHDR),
    (False, "ehdr"): ("16sHHIIIIIHHHHHH", EHDR),
    (True, "shdr"): ("IIQQQQIIQQ", SHDR),
    (False, "shdr"): ("IIIIIIIIII", SHDR),
    (True, "sym"): ("IBBHQQ", SYM64),
    (False, "sym"): ("IIIBBH", SYM32),
}
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_NOBITS, SHT_REL = 1, 2, 3, 4, 8, 9
ALLOC, WRITE, EXEC, MERGE = 2, 1, 4, 0x10
ABS, COMMON = 0xFFF1, 0xFFF2
GLOBAL, WEAK = 1, 2
SYMTAB, STRTAB, SHSTRTAB = ".symtab", ".strtab", ".shstrtab"


@dataclass(frozen=True)
class Sec:
    """One section; `link` and `info` may name a section."""

    name: str
    data: bytes = b"\0" * 64
    flags: int = ALLOC
    type: int = SHT_PROGBITS
    link: str | int = 0
    info: str | int = 0
    align: int = 1
    entsize: int = 0
    size: int | None = None  # SHT_NOBITS, or a lie


@dataclass(frozen=True)
class Sym:
    """One symbol; `shndx` may name a section. A name that is a number is used as st_name."""

    name: bytes | int
    shndx: str | int = ".text"
    bind: int = 0
    type: int = 2
    value: int = 0
    size: int = 1


TEXT = Sec(".text", flags=ALLOC | EXEC)
HOOK = Sec(".livepatch.hooks.load", bytes(8), flags=ALLOC | WRITE, align=8)


@dataclass
class Built:
    """A file and where its parts are; `edit` changes one field of a copy."""

    data: bytes
    is_64: bool
    order: str
    numbers: dict[str, int]
    places: dict[str, int] = field(default_factory=dict)

    def at(self, part: str, name: str, index: int | str = 0) -> tuple[str, int]:
        """struct format and file offset of a field."""
        codes, fields = FORMATS[self.is_64, part]
        number = self.numbers[index] if isinstance(index, str) else index
        names = fields.split()
        code_list = ["16s", *codes[3:]] if part == "ehdr" else list(codes)
        position = names.index(name)
        start = self.places[part] + number * struct.calcsize(self.order + codes)
        return code_list[position], start + struct.calcsize(self.order + "".join(code_list[:position]))

    def get(self, part: str, name: str, index: int | str = 0) -> int:
        code, at = self.at(part, name, index)
        value: int = struct.unpack_from(self.order + code, self.data, at)[0]
        return value

    def edit(self, part: str, name: str, value: int, index: int | str = 0) -> bytes:
        out = bytearray(self.data)
        code, at = self.at(part, name, index)
        struct.pack_into(self.order + code, out, at, value)
        return bytes(out)


def note(desc: bytes, order: str = "<") -> bytes:
    """A GNU build-id note."""
    return struct.pack(order + "III", 4, len(desc), 3) + b"GNU\0" + desc


def build_id(desc: bytes = b"\xab" * 20, order: str = "<") -> Sec:
    return Sec(".note.gnu.build-id", note(desc, order), type=7, align=4)


def funcs(count: int, version: int = 2, is_64: bool = True) -> Sec:
    """`.livepatch.funcs` with `count` entries; the pointers are left to relocations."""
    head = 32 if is_64 else 20
    entry = bytes(head) + bytes([version]) + bytes(31 + (40 if version == 2 else 0))
    return Sec(".livepatch.funcs", entry * count, flags=ALLOC | WRITE, align=8)


def rela(target: str, entries: list[tuple[int, int, int, int]], order: str = "<") -> Sec:
    """SHT_RELA for `target`: offset, symbol, type, addend."""
    data = b"".join(struct.pack(order + "QQq", offset, sym << 32 | kind, add) for offset, sym, kind, add in entries)
    return Sec(".rela" + target, data, flags=0, type=SHT_RELA, link=SYMTAB, info=target, align=8, entsize=24)


def rel32(target: str, entries: list[tuple[int, int, int]], order: str = "<") -> Sec:
    """SHT_REL for `target` in a 32-bit file: offset, symbol, type."""
    data = b"".join(struct.pack(order + "II", offset, sym << 8 | kind) for offset, sym, kind in entries)
    return Sec(".rel" + target, data, flags=0, type=SHT_REL, link=SYMTAB, info=target, align=4, entsize=8)


def build(
    sections: list[Sec],
    symbols: list[Sym],
    *,
    is_64: bool = True,
    big: bool = False,
    machine: int = 62,
    one_string_table: bool = False,
) -> Built:
    """The file: header, section data in order, .symtab, .strtab, .shstrtab, section headers."""
    order = ">" if big else "<"
    strings, offsets = bytearray(b"\0"), {b"": 0}
    for symbol in symbols:
        if isinstance(symbol.name, bytes) and symbol.name not in offsets:
            offsets[symbol.name] = len(strings)
            strings += symbol.name + b"\0"
    names = [section.name for section in sections] + [SYMTAB, STRTAB] + ([] if one_string_table else [SHSTRTAB])
    numbers = {name: index for index, name in reversed(list(enumerate(names, 1)))}
    section_names = strings if one_string_table else bytearray(b"\0")
    name_offsets = []
    for name in names:
        name_offsets.append(len(section_names))
        section_names += name.encode() + b"\0"

    def number(where: str | int) -> int:
        return numbers[where] if isinstance(where, str) else where

    codes, fields = FORMATS[is_64, "sym"]
    table = bytearray(struct.calcsize(order + codes))
    for symbol in symbols:
        values = {
            "st_name": offsets[symbol.name] if isinstance(symbol.name, bytes) else symbol.name,
            "st_info": symbol.bind << 4 | symbol.type,
            "st_other": 0,
            "st_shndx": number(symbol.shndx),
            "st_value": symbol.value,
            "st_size": symbol.size,
        }
        table += struct.pack(order + codes, *(values[name] for name in fields.split()))
    sym_size = struct.calcsize(order + codes)
    locals_end = 1 + sum(symbol.bind == 0 for symbol in symbols)
    sections = [
        *sections,
        Sec(SYMTAB, bytes(table), 0, SHT_SYMTAB, STRTAB, locals_end, 8, sym_size),
        Sec(STRTAB, bytes(strings), 0, SHT_STRTAB),
    ] + ([] if one_string_table else [Sec(SHSTRTAB, bytes(section_names), 0, SHT_STRTAB)])
    if one_string_table:
        sections[-1] = replace(sections[-1], data=bytes(section_names))

    shdr, ehdr = (order + FORMATS[is_64, part][0] for part in ("shdr", "ehdr"))
    body, headers = bytearray(struct.calcsize(ehdr)), [bytes(struct.calcsize(shdr))]
    places = {"ehdr": 0}
    for section, name_offset in zip(sections, name_offsets, strict=True):
        body += bytes(-len(body) % (section.align or 1))
        size = len(section.data) if section.size is None else section.size
        header = (
            name_offset, section.type, section.flags, 0, len(body), size, number(section.link), number(section.info),
            section.align, section.entsize,
        )  # fmt: skip
        headers.append(struct.pack(shdr, *header))
        if section.name == SYMTAB:
            places["sym"] = len(body)
        if section.type != SHT_NOBITS:
            body += section.data
    body += bytes(-len(body) % 8)
    places["shdr"] = len(body)
    ident = b"\x7fELF" + bytes([2 if is_64 else 1, 2 if big else 1, 1]) + bytes(9)
    struct.pack_into(
        ehdr, body, 0, ident, 1, machine, 1, 0, 0, len(body), 0, struct.calcsize(ehdr), 0, 0, struct.calcsize(shdr),
        len(headers), len(sections),
    )  # fmt: skip
    return Built(bytes(body) + b"".join(headers), is_64, order, numbers, places)


def plain(**options: bool | int) -> Built:
    """A payload with a bit of everything, sound."""
    is_64 = bool(options.get("is_64", True))
    order = ">" if options.get("big") else "<"
    symbols = [
        Sym(b"x86_emulate.c", ABS, type=4),
        Sym(b"", ".text", type=3),
        Sym(b"x86_emulate.c#_get_fpu", value=16),
        Sym(b"x86_emulate.c#patched", value=0),
        Sym(b"domain.c#hv_local", 0),
        Sym(b"lp_helper", value=32),
        Sym(b"lp_global", bind=GLOBAL, value=48),
    ]
    section, func = 2, funcs(1, is_64=is_64)
    relocation = rela(func.name, [(8, section, 1, 0)], order) if is_64 else rel32(func.name, [(4, section, 2)], order)
    sections = [TEXT, build_id(order=order), func, relocation]
    return build(sections, symbols, machine=62 if is_64 else 40, **{k: bool(v) for k, v in options.items()})
