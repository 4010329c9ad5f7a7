"""Edits single fields of a 64-bit little-endian payload, the wrong ones too."""

from __future__ import annotations

import struct

HEADER = {"class": 4, "data": 5, "version": 6, "osabi": 7, "abiversion": 8}
EHDR = {
    "e_type": (16, "H"), "e_machine": (18, "H"), "e_version": (20, "I"), "e_shoff": (40, "Q"), "e_ehsize": (52, "H"),
    "e_phnum": (56, "H"), "e_shentsize": (58, "H"), "e_shnum": (60, "H"), "e_shstrndx": (62, "H"),
}  # fmt: skip
SHDR = {
    "name": (0, "I"), "type": (4, "I"), "flags": (8, "Q"), "addr": (16, "Q"), "offset": (24, "Q"), "size": (32, "Q"),
    "link": (40, "I"), "info": (44, "I"), "addralign": (48, "Q"), "entsize": (56, "Q"),
}  # fmt: skip
SYM = {"name": (0, "I"), "info": (4, "B"), "shndx": (6, "H"), "value": (8, "Q"), "size": (16, "Q")}
RELA = {"offset": (0, "Q"), "type": (8, "I"), "symbol": (12, "I"), "addend": (16, "q")}
FUNC = {
    "name": (0, "Q"), "new_addr": (8, "Q"), "old_addr": (16, "Q"), "new_size": (24, "I"), "old_size": (28, "I"),
    "version": (32, "B"), "expect": (72, "B"), "expected": (73, "B"),
}  # fmt: skip

Fields = dict[str, tuple[int, str]]


class Editor:
    """The fields are named as in the ELF specification, without their prefix; sections by name or number."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)

    def get(self, fields: Fields, name: str, at: int = 0) -> int:
        offset, kind = fields[name]
        value: int = struct.unpack_from("<" + kind, self.data, at + offset)[0]
        return value

    def put(self, fields: Fields, at: int = 0, **values: int) -> Editor:
        for name, value in values.items():
            offset, kind = fields[name]
            mask = (1 << 8 * struct.calcsize(kind)) - 1
            number = value if kind.islower() else value & mask
            struct.pack_into("<" + kind, self.data, at + offset, number)
        return self

    # Sections

    @property
    def count(self) -> int:
        return self.get(EHDR, "e_shnum")

    def header(self, section: str | int) -> int:
        number = self.section(section) if isinstance(section, str) else section
        return self.get(EHDR, "e_shoff") + 64 * number

    def name(self, number: int) -> str:
        table = self.field(self.get(EHDR, "e_shstrndx"), "offset")
        return self.string(table + self.field(number, "name")).decode()

    def section(self, name: str) -> int:
        return next(number for number in range(1, self.count) if self.name(number) == name)

    def field(self, section: str | int, name: str) -> int:
        return self.get(SHDR, name, self.header(section))

    def edit(self, section: str | int, **values: int) -> Editor:
        return self.put(SHDR, self.header(section), **values)

    def content(self, section: str | int) -> int:
        return self.field(section, "offset")

    def byte(self, section: str | int, offset: int, value: int) -> Editor:
        self.data[self.content(section) + offset] = value
        return self

    def word(self, section: str | int, offset: int, value: int) -> Editor:
        struct.pack_into("<I", self.data, self.content(section) + offset, value)
        return self

    def add(self, name: str, content: bytes, flags: int = 2, kind: int = 1, align: int = 8) -> Editor:
        """A new last section, and the section header table after it."""
        names = self.get(EHDR, "e_shstrndx")
        table = self.data[self.content(names) : self.content(names) + self.field(names, "size")]
        headers = self.data[self.header(0) : self.header(self.count)]
        self.data += bytes(-len(self.data) % 16)
        at = len(self.data)
        self.data += content
        new = struct.pack("<IIQQQQIIQQ", len(table), kind, flags, 0, at, len(content), 0, 0, align, 0)
        struct.pack_into("<QQ", headers, 64 * names + 24, len(self.data), len(table) + len(name) + 1)
        self.data += table + name.encode() + b"\0"
        self.data += bytes(-len(self.data) % 8)
        self.put(EHDR, e_shoff=len(self.data), e_shnum=self.count + 1)
        self.data += headers + new
        return self

    def add_relocation(self, target: str, offset: int, symbol: int, kind: int = 1, addend: int = 0) -> Editor:
        """A relocation section of one entry for section `target`."""
        self.add(f".rela{target}", struct.pack("<QIIq", offset, kind, symbol, addend), flags=0, kind=4)
        link, info = self.section(".symtab"), self.section(target)
        return self.edit(self.count - 1, link=link, info=info, entsize=24)

    # Symbols

    @property
    def symbols(self) -> int:
        return self.field(".symtab", "size") // 24

    def symbol(self, name: str) -> int:
        table, strings = self.content(".symtab"), self.content(".strtab")
        for number in range(1, self.symbols):
            if self.string(strings + self.get(SYM, "name", table + 24 * number)).decode() == name:
                return number
        raise KeyError(name)

    def edit_symbol(self, symbol: str | int, **values: int) -> Editor:
        number = self.symbol(symbol) if isinstance(symbol, str) else symbol
        return self.put(SYM, self.content(".symtab") + 24 * number, **values)

    def rename(self, symbol: str, name: str) -> Editor:
        number, at = self.symbol(symbol), self.content(".strtab")
        table = self.data[at : at + self.field(".strtab", "size")]
        self.edit(".strtab", offset=len(self.data), size=len(table) + len(name.encode()) + 1)
        self.data += table + name.encode() + b"\0"
        return self.edit_symbol(number, name=len(table))

    def string(self, at: int) -> bytes:
        return bytes(self.data[at : self.data.index(0, at)])

    # Relocations, functions

    def relocation(self, section: str, number: int, **values: int) -> Editor:
        return self.put(RELA, self.content(section) + 24 * number, **values)

    def function(self, **values: int) -> Editor:
        return self.put(FUNC, self.content(".livepatch.funcs"), **values)

    def build_id(self, value: bytes, section: str = ".note.gnu.build-id") -> Editor:
        at = self.content(section) + 16
        self.data[at : at + len(value)] = value
        return self
