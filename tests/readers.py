"""Three readers of the same file, each with rows of the same fields: lpmangle, pyelftools, LIEF."""

from __future__ import annotations

import struct
from pathlib import Path

import lief
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from lpmangle.elf import parse

Row = tuple[object, ...]
NAMED_INDEX = {"SHN_UNDEF": 0, "SHN_ABS": 0xFFF1}
BINDING = {"STB_LOCAL": 0, "STB_GLOBAL": 1, "STB_WEAK": 2}
KIND = {"STT_NOTYPE": 0, "STT_OBJECT": 1, "STT_FUNC": 2, "STT_SECTION": 3, "STT_FILE": 4}


def symbol_table(elf: ELFFile) -> SymbolTableSection:
    table = elf.get_section_by_name(".symtab")
    assert isinstance(table, SymbolTableSection)
    return table


def read_names(path: Path) -> list[str]:
    with path.open("rb") as file:
        return [symbol.name for symbol in symbol_table(ELFFile(file)).iter_symbols()]


def read_build_id(path: Path) -> str:
    with path.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".note.gnu.build-id")
        assert section is not None
        return bytes(section.data()[16:36]).hex()


def by_lpmangle(data: bytes) -> tuple[list[Row], list[Row]]:
    view = parse(data)
    symbols: list[Row] = [(view.string(s.st_name).decode(), *s, s.st_info >> 4, s.st_info & 15) for s in view.symbols()]
    assert len(symbols) == view.symbol_count
    assert all(view.symbol(i) == s for i, s in enumerate(view.symbols()))
    sections: list[Row] = [
        (s.name, s.type, s.flags, s.offset, s.size, s.link, s.info, s.addralign, s.entsize) for s in view.sections
    ]
    return symbols, sections


def by_pyelftools(data: bytes, path: Path) -> tuple[list[Row], list[Row]]:
    """Numbers that pyelftools replaces by names are unpacked here from the offsets that it gives."""
    with path.open("rb") as file:
        elf = ELFFile(file)
        order = "<" if elf.little_endian else ">"
        symbols: list[Row] = []
        table = symbol_table(elf)
        for i, symbol in enumerate(table.iter_symbols()):
            s, at = symbol.entry, table["sh_offset"] + i * table["sh_entsize"]
            at += 4 if elf.elfclass == 64 else 12
            info, other, shndx = struct.unpack_from(f"{order}BBH", data, at)
            named = s.st_shndx if isinstance(s.st_shndx, int) else NAMED_INDEX[s.st_shndx]
            assert named == shndx
            binding, kind = BINDING[s.st_info.bind], KIND[s.st_info.type]
            fields = (s.st_name, info, other, shndx, s.st_value, s.st_size, binding, kind)
            symbols.append((symbol.name, *fields))
        sections: list[Row] = []
        for i, section in enumerate(elf.iter_sections()):
            h = section.header
            at = elf["e_shoff"] + i * elf["e_shentsize"]
            (kind,) = struct.unpack_from(f"{order}I", data, at + 4)
            row = (section.name, kind, h.sh_flags, h.sh_offset, h.sh_size, h.sh_link, h.sh_info)
            sections.append((*row, h.sh_addralign, h.sh_entsize))
    return symbols, sections


def by_lief(path: Path) -> tuple[list[Row], list[Row]]:
    """Relocations stay unread: LIEF looks up their symbols by name."""
    config = lief.ELF.ParserConfig()
    config.parse_relocations = False
    config.parse_notes = False
    elf = lief.ELF.parse(str(path), config)
    assert elf is not None
    symbols: list[Row] = [
        (s.name, s.information, s.other, s.shndx, s.value, s.size, s.binding.value, s.type.value)
        for s in elf.symtab_symbols
    ]
    sections: list[Row] = [
        # The upper half of LIEF's type is its own.
        (s.name, s.type.value & 0xFFFFFFFF, s.flags, s.offset, s.size, s.link, s.information, s.alignment, s.entry_size)
        for s in elf.sections
    ]
    return symbols, sections
