"""The reader of ELF files: what it reads, and one wrong field for each of its checks."""

import struct

import pytest
from elfbuild import GLOBAL, SHT_RELA, Built, Sec, Sym, build, plain
from memory import allocated

from lpmangle import elf
from lpmangle.errors import ElfError, PayloadError
from lpmangle.xen.payload import Payload

SHAPES = [{"is_64": is_64, "big": big} for is_64 in (True, False) for big in (True, False)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_reads_what_was_built(shape: dict[str, bool]) -> None:
    view = elf.parse(plain(**shape).data)
    names = [view.string(symbol.st_name) for symbol in view.symbols()]
    assert names == [
        b"", b"x86_emulate.c", b"", b"x86_emulate.c#_get_fpu", b"x86_emulate.c#patched", b"domain.c#hv_local",
        b"lp_helper", b"lp_global",
    ]  # fmt: skip
    assert [view.symbol(index) for index in range(view.symbol_count)] == list(view.symbols())
    symbol = view.symbol(3)
    assert (symbol.st_value, symbol.st_size, symbol.type, symbol.binding) == (16, 1, 2, 0)
    assert view.sections[symbol.st_shndx].name == ".text"
    assert view.symbol(7).binding == GLOBAL
    funcs = view.section_named(".livepatch.funcs")
    assert funcs is not None
    relocations = list(view.relocations(funcs))
    assert [(r.r_offset, r.r_sym, r.r_addend) for r in relocations] == [(8, 2, 0) if shape["is_64"] else (4, 2, None)]
    assert view.section_named("no such section") is None
    for field in ("st_name", "st_info", "st_shndx", "st_value", "st_size"):
        assert list(view.symbol_column(field)) == [getattr(symbol, field) for symbol in view.symbols()]
    assert view.strings(view.symbol_column("st_name")) == names


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("field", ["st_name", "st_info", "st_shndx", "st_value", "st_size"])
def test_one_field_of_all_symbols_is_written(shape: dict[str, bool], field: str) -> None:
    view = elf.parse(plain(**shape).data)
    out, column = bytearray(view.data), view.symbol_column(field)
    column[3] ^= 0x7B
    symbols = bytearray(view.section_data(view.symtab))
    view.layout.put_symbol_column(symbols, field, column)
    out[view.symtab.offset : view.symtab.end] = symbols
    changed = [*view.symbols()]
    changed[3] = changed[3]._replace(**{field: getattr(changed[3], field) ^ 0x7B})
    assert list(view.moved(bytes(out)).symbols()) == changed
    assert list(view.layout.symbol_column(symbols, field)) == list(column)


def _second_symtab(built: Built) -> bytes:
    return built.edit("shdr", "sh_type", 2, ".text")


def _no_symtab(built: Built) -> bytes:
    return built.edit("shdr", "sh_type", 1, ".symtab")


def _symtab_at(offset_of: str) -> bytes:
    built = plain()
    return built.edit("shdr", "sh_offset", built.get("shdr", "sh_offset", offset_of), ".symtab")


def _last_byte(section: str) -> bytes:
    built = plain()
    out = bytearray(built.data)
    out[built.get("shdr", "sh_offset", section) + built.get("shdr", "sh_size", section) - 1] = 0x41
    return bytes(out)


def _first_byte(section: str) -> bytes:
    built = plain()
    out = bytearray(built.data)
    out[built.get("shdr", "sh_offset", section)] = 0x41
    return bytes(out)


def _ident(position: int, value: int) -> bytes:
    out = bytearray(plain().data)
    out[position] = value
    return bytes(out)


def _extended_section_count(count: int) -> bytes:
    built = plain()
    out = bytearray(built.edit("ehdr", "e_shnum", 0))
    struct.pack_into("<Q", out, built.at("shdr", "sh_size", 0)[1], count)
    return bytes(out)


def _edit(part: str, name: str, value: int, index: int | str = 0) -> bytes:
    return plain().edit(part, name, value, index)


def _many_sections(count: int) -> bytes:
    """A file with `count` sections in all."""
    return build([Sec(".text")] + [Sec(f".s{n}", b"x") for n in range(count - 5)], [Sym(b"f")]).data


HUGE = 2**64 - 8
CORRUPT = {
    "empty file": (b"", "not an ELF file"),
    "not ELF": (b"#!/bin/sh\necho\n" * 10, "not an ELF file"),
    "magic alone": (b"\x7fELF", "truncated inside the ELF header"),
    "ident alone": (plain().data[:16], "truncated inside the ELF header"),
    "header cut": (plain().data[:63], "truncated inside the ELF header"),
    "class": (_ident(4, 3), "ELF class 3"),
    "byte order": (_ident(5, 0), "ELF byte order 0"),
    "ident version": (_ident(6, 0), "ELF version"),
    "e_version": (_edit("ehdr", "e_version", 2), "ELF version 2"),
    "executable": (_edit("ehdr", "e_type", 2), "is an executable; lpmangle is only for"),
    "unknown type": (_edit("ehdr", "e_type", 0xFE00), "of ELF type 65024"),
    "no section headers": (_edit("ehdr", "e_shoff", 0), "has no section header table"),
    "e_shentsize": (_edit("ehdr", "e_shentsize", 65), "section headers have 65 bytes each, expected 64"),
    "e_shentsize 0": (_edit("ehdr", "e_shentsize", 0), "section headers have 0 bytes each"),
    "e_shoff past the end": (_edit("ehdr", "e_shoff", HUGE), "section header table at .* is outside the file"),
    "e_shoff in the header": (_edit("ehdr", "e_shoff", 8), "section header table at 0x8 is outside"),
    "headers cut": (plain().data[:-1], "truncated: the section header table ends at"),
    "e_shnum too large": (_edit("ehdr", "e_shnum", 900), "truncated: the section header table ends at"),
    "no sections": (_edit("ehdr", "e_shnum", 0), "has no sections"),
    "70000 sections": (_extended_section_count(70000), "truncated: the section header table ends at"),
    "2^63 sections": (_extended_section_count(2**63), "truncated: the section header table ends at"),
    "e_shstrndx 0": (_edit("ehdr", "e_shstrndx", 0), "e_shstrndx 0 is not one of the sections"),
    "e_shstrndx": (_edit("ehdr", "e_shstrndx", 0xFFFF), "e_shstrndx 65535"),
    "names are no string table": (_edit("ehdr", "e_shstrndx", 1), "section names, is not a string table"),
    "names outside": (_edit("shdr", "sh_offset", HUGE, ".shstrtab"), r"\(section names\) is outside the file"),
    "names size": (_edit("shdr", "sh_size", HUGE, ".shstrtab"), r"\(section names\) is outside the file"),
    "names empty": (_edit("shdr", "sh_size", 0, ".shstrtab"), r"\(section names\) is not terminated"),
    "names unterminated": (_last_byte(".shstrtab"), r"\(section names\) is not terminated"),
    "sh_name": (_edit("shdr", "sh_name", 2**31, ".text"), "section 1: its name is outside"),
    "sh_link": (_edit("shdr", "sh_link", 8, ".rela.livepatch.funcs"), "sh_link 8 is not one of the 8 sections"),
    "sh_link of a plain section": (_edit("shdr", "sh_link", 2**32 - 1, ".text"), r"section 1 \(.text\): sh_link"),
    "sh_info of RELA": (_edit("shdr", "sh_info", 99, ".rela.livepatch.funcs"), "sh_info 99 is not one of"),
    "data past the end": (_edit("shdr", "sh_size", 10**6, ".text"), r"\(.text\): its data .* is outside the file"),
    "size near 2^64": (_edit("shdr", "sh_size", HUGE, ".text"), "its data .* is outside the file"),
    "offset near 2^64": (_edit("shdr", "sh_offset", HUGE, ".text"), "its data .* is outside the file"),
    "data in the header": (_edit("shdr", "sh_offset", 10, ".text"), "is inside the ELF header"),
    "no symbol table": (_no_symtab(plain()), "has no symbol table"),
    "symbols that are loaded": (_edit("shdr", "sh_flags", 2, ".symtab"), "would be loaded"),
    "strings that are loaded": (_edit("shdr", "sh_flags", 3, ".strtab"), "would be loaded"),
    "section 0": (_edit("shdr", "sh_type", 4, 0), "section 0 is not the null section"),
    "two symbol tables": (_second_symtab(plain()), "has 2 symbol tables"),
    "symbol size": (_edit("shdr", "sh_entsize", 16, ".symtab"), "symbols have 16 bytes each, expected 24"),
    "symbol size 0": (_edit("shdr", "sh_entsize", 0, ".symtab"), "symbols have 0 bytes each"),
    "symbols empty": (_edit("shdr", "sh_size", 0, ".symtab"), "0 bytes are not a whole number of symbols"),
    "symbols cut": (_edit("shdr", "sh_size", 25, ".symtab"), "25 bytes are not a whole number of symbols"),
    "sh_info of symtab": (_edit("shdr", "sh_info", 9, ".symtab"), "sh_info 9 is more than its 8 symbols"),
    "no string table": (_edit("shdr", "sh_link", 0, ".symtab"), "has no string table"),
    "not a string table": (_edit("shdr", "sh_link", 1, ".symtab"), "is not of type SHT_STRTAB"),
    "strings empty": (_edit("shdr", "sh_size", 0, ".strtab"), "does not begin and end with a NUL"),
    "strings unterminated": (_last_byte(".strtab"), "does not begin and end with a NUL"),
    "strings without first NUL": (_first_byte(".strtab"), "does not begin and end with a NUL"),
    "st_name": (_edit("sym", "st_name", 2**32 - 1, 3), "symbol 3: its name is outside the string table"),
    "st_shndx": (_edit("sym", "st_shndx", 8, 4), "symbol 4: st_shndx 0x8 is not one of the 8 sections"),
    "SHN_XINDEX": (_edit("sym", "st_shndx", 0xFFFF, 4), "symbol 4: st_shndx 0xffff"),
    "symtab over .text": (_symtab_at(".text"), "overlaps the symbol table"),
    "symtab over .strtab": (_symtab_at(".strtab"), "outside the file|overlaps the symbol table|NUL"),
    "section over the headers": (
        plain().edit("shdr", "sh_offset", plain().get("ehdr", "e_shoff"), ".text"),
        r"\(.text\): its data overlaps the section header table",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CORRUPT)
def test_corrupt(case: str) -> None:
    data, message = CORRUPT[case]
    with pytest.raises(ElfError, match=message):
        elf.parse(data)


def test_the_first_wrong_section_number_is_named() -> None:
    """As by Xen, which stops there."""
    data = build([Sec(".text")], [Sym(b"f"), Sym(b"g", 0x3000), Sym(b"h", 9), Sym(b"i", 0x3000)]).data
    with pytest.raises(ElfError, match="symbol 2: st_shndx 0x3000 is not one of the 5 sections"):
        elf.parse(data)


def test_group_signature_out_of_range() -> None:
    group = Sec(".group", struct.pack("<II", 1, 1), flags=0, type=17, link=".symtab", info=3, entsize=4)
    with pytest.raises(ElfError, match="sh_info 3 is not one of the 2 symbols"):
        elf.parse(build([Sec(".text"), group], [Sym(b"f")]).data)


def test_xen_takes_fewer_than_1024_sections() -> None:
    assert len(Payload.parse(_many_sections(1023)).elf.sections) == 1023
    assert len(elf.parse(_many_sections(1024)).sections) == 1024
    with pytest.raises(PayloadError, match="has 1024 sections; Xen refuses"):
        Payload.parse(_many_sections(1024))


@pytest.mark.parametrize("cut", range(0, len(plain().data), 7))
def test_truncated_anywhere(cut: int) -> None:
    with pytest.raises(ElfError):
        elf.parse(plain().data[:cut])


def test_relocation_tables_are_checked_when_read() -> None:
    for field, value in (("sh_entsize", 0), ("sh_size", 23)):
        view = elf.parse(plain().edit("shdr", field, value, ".rela.livepatch.funcs"))
        target = view.section_named(".livepatch.funcs")
        assert target is not None
        with pytest.raises(ElfError, match="is not a relocation table"):
            list(view.relocations(target))


def test_overlapping_relocation_tables_cost_nothing() -> None:
    tables = [Sec(".rela", bytes(24), 0, SHT_RELA, ".symtab", ".text", entsize=24) for _ in range(900)]
    built = build([Sec(".text"), Sec(".pad", bytes(24 * 50_000)), *tables], [Sym(b"f")])
    out = bytearray(built.data)
    for number in range(3, 903):
        for field, value in (("sh_offset", built.get("shdr", "sh_offset", ".pad")), ("sh_size", 24 * 50_000)):
            struct.pack_into("<Q", out, built.at("shdr", field, number)[1], value)
    view = elf.parse(bytes(out))
    with pytest.raises(ElfError, match="its relocation tables overlap"):  # before it gives any
        next(view.relocations(view.sections[1]))


def test_long_names_cost_nothing() -> None:
    """1000 sections and 2000 symbols that share one name of 4 MiB: refused at once, in little memory."""
    built = build([Sec(".text"), Sec(".pad", b"A" * (4 << 20))] + [Sec(".s", b"x")] * 1000, [Sym(b"f")] * 2000)
    offset = built.get("shdr", "sh_offset", ".pad")
    out = bytearray(built.edit("shdr", "sh_offset", offset, ".shstrtab"))
    struct.pack_into("<Q", out, built.at("shdr", "sh_size", ".shstrtab")[1], 4 << 20)
    out[offset + (4 << 20) - 1] = 0
    with allocated() as peak, pytest.raises(ElfError, match="has a name of more than 4096 bytes"):
        elf.parse(bytes(out))
    assert peak() < 32 << 20


def test_names_beside_a_long_string() -> None:
    """A string that is too long for a name is harmless if nothing has that name, such as a mark; else it is refused."""
    longest, longer = b"f" * 4096, b"g" * 4097
    view = elf.parse(build([Sec(".text")], [Sym(longest), Sym(longer)]).data)
    st_names = view.symbol_column("st_name")
    assert view.strings(st_names[:2]) == [b"", longest]
    with allocated() as peak, pytest.raises(ElfError, match="has a name of more than 4096 bytes"):
        view.strings([st_names[2]] * 10_000)
    assert peak() < 1 << 20
