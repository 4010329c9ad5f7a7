"""Edits single fields of a little-endian payload, 64-bit or 32-bit, also to wrong values."""

from __future__ import annotations

import struct
from typing import NamedTuple

Fields = dict[str, tuple[int, str]]

IDENT: Fields = {name: (4 + n, "B") for n, name in enumerate(("class", "data", "version", "osabi", "abiversion"))}


class Format(NamedTuple):
    """The fields of one ELF class: offset and struct format."""

    ehdr: Fields
    shdr: Fields
    shdr_size: int
    sym: Fields
    sym_size: int
    relocation: Fields  # of the kind that Xen supports on the machine
    relocation_size: int
    relocation_kind: int  # SHT_RELA or SHT_REL
    relocation_prefix: str
    func: Fields  # struct livepatch_func
    func_size: int
    pointer: int


FORMAT_64 = Format(
    {
        "e_type": (16, "H"), "e_machine": (18, "H"), "e_version": (20, "I"), "e_shoff": (40, "Q"), "e_flags": (48, "I"),
        "e_ehsize": (52, "H"), "e_phnum": (56, "H"), "e_shentsize": (58, "H"), "e_shnum": (60, "H"),
        "e_shstrndx": (62, "H"),
    },
    {
        "name": (0, "I"), "type": (4, "I"), "flags": (8, "Q"), "addr": (16, "Q"), "offset": (24, "Q"),
        "size": (32, "Q"), "link": (40, "I"), "info": (44, "I"), "addralign": (48, "Q"), "entsize": (56, "Q"),
    },
    64,
    {"name": (0, "I"), "info": (4, "B"), "shndx": (6, "H"), "value": (8, "Q"), "size": (16, "Q")},
    24,
    {"offset": (0, "Q"), "type": (8, "I"), "symbol": (12, "I"), "addend": (16, "q")},
    24,
    4,
    ".rela",
    {
        "name": (0, "Q"), "new_addr": (8, "Q"), "old_addr": (16, "Q"), "new_size": (24, "I"), "old_size": (28, "I"),
        "version": (32, "B"), "expect": (72, "B"), "expected": (73, "B"),
    },
    104,
    8,
)  # fmt: skip
FORMAT_32 = Format(
    {
        "e_type": (16, "H"), "e_machine": (18, "H"), "e_version": (20, "I"), "e_shoff": (32, "I"), "e_flags": (36, "I"),
        "e_ehsize": (40, "H"), "e_phnum": (44, "H"), "e_shentsize": (46, "H"), "e_shnum": (48, "H"),
        "e_shstrndx": (50, "H"),
    },
    {
        "name": (0, "I"), "type": (4, "I"), "flags": (8, "I"), "addr": (12, "I"), "offset": (16, "I"),
        "size": (20, "I"), "link": (24, "I"), "info": (28, "I"), "addralign": (32, "I"), "entsize": (36, "I"),
    },
    40,
    {"name": (0, "I"), "value": (4, "I"), "size": (8, "I"), "info": (12, "B"), "shndx": (14, "H")},
    16,
    # r_info: the type in its low byte, the symbol above; in a payload of ours never more than 16 bits of it
    {"offset": (0, "I"), "type": (4, "B"), "symbol": (5, "H")},
    8,
    9,
    ".rel",
    {
        "name": (0, "I"), "new_addr": (4, "I"), "old_addr": (8, "I"), "new_size": (12, "I"), "old_size": (16, "I"),
        "version": (20, "B"), "expect": (60, "B"), "expected": (61, "B"),
    },
    92,
    4,
)  # fmt: skip


class Editor:
    """Fields have the names of the ELF specification, without prefix; sections are given by name or number."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.format = FORMAT_32 if data[4:5] == b"\x01" else FORMAT_64
        self.machine = int.from_bytes(data[18:20], "little")

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

    def header(self, **values: int) -> Editor:
        return self.put(self.format.ehdr, **values)

    def ident(self, name: str, value: int) -> Editor:
        return self.put(IDENT, **{name: value})

    # Sections

    @property
    def count(self) -> int:
        return self.get(self.format.ehdr, "e_shnum")

    def section_header(self, section: str | int) -> int:
        number = self.section(section) if isinstance(section, str) else section
        return self.get(self.format.ehdr, "e_shoff") + self.format.shdr_size * number

    def name(self, number: int) -> str:
        table = self.field(self.get(self.format.ehdr, "e_shstrndx"), "offset")
        return self.string(table + self.field(number, "name")).decode()

    def section(self, name: str) -> int:
        return next(number for number in range(1, self.count) if self.name(number) == name)

    def field(self, section: str | int, name: str) -> int:
        return self.get(self.format.shdr, name, self.section_header(section))

    def edit(self, section: str | int, **values: int) -> Editor:
        return self.put(self.format.shdr, self.section_header(section), **values)

    def content(self, section: str | int) -> int:
        return self.field(section, "offset")

    def bytes_of(self, section: str | int) -> bytes:
        start = self.content(section)
        return bytes(self.data[start : start + self.field(section, "size")])

    def byte(self, section: str | int, offset: int, value: int) -> Editor:
        self.data[self.content(section) + offset] = value
        return self

    def word(self, section: str | int, offset: int, value: int) -> Editor:
        struct.pack_into("<I", self.data, self.content(section) + offset, value & 0xFFFFFFFF)
        return self

    def replace(self, section: str | int, content: bytes) -> Editor:
        """New content, of any length, at the end of the file."""
        self.data += bytes(-len(self.data) % 16)
        self.edit(section, offset=len(self.data), size=len(content))
        self.data += content
        return self

    def add(self, name: str, content: bytes, flags: int = 2, kind: int = 1, align: int = 8) -> Editor:
        """A new last section, and the section header table after it."""
        names = self.get(self.format.ehdr, "e_shstrndx")
        table = self.bytes_of(names)
        headers = self.data[self.section_header(0) : self.section_header(self.count)]
        self.data += bytes(-len(self.data) % 16)
        at = len(self.data)
        self.data += content
        new = bytearray(self.format.shdr_size)
        self.replace(names, table + name.encode() + b"\0")
        place = self.format.shdr_size * names
        headers[place : place + self.format.shdr_size] = self.data[self.section_header(names) :][
            : self.format.shdr_size
        ]
        self.data += bytes(-len(self.data) % 8)
        self.header(e_shoff=len(self.data), e_shnum=self.count + 1)
        self.data += headers + new
        values = {"name": len(table), "type": kind, "flags": flags, "offset": at, "size": len(content)}
        return self.edit(self.count - 1, addralign=align, **values)

    def add_relocation(self, target: str, offset: int, symbol: int, kind: int | None = None, addend: int = 0) -> Editor:
        """A relocation section with one entry for section `target`, by default of a pointer."""
        form = self.format
        row = Editor(bytes(self.data[:20]) + bytes(form.relocation_size))
        row.put(form.relocation, 20, offset=offset, type=self.kinds.pointer if kind is None else kind, symbol=symbol)
        if "addend" in form.relocation:
            row.put(form.relocation, 20, addend=addend)
        return self.add_relocations(target, bytes(row.data[20:]))

    def add_relocations(self, target: str, rows: bytes) -> Editor:
        form = self.format
        self.add(form.relocation_prefix + target, rows, flags=0, kind=form.relocation_kind)
        link, info = self.section(".symtab"), self.section(target)
        return self.edit(self.count - 1, link=link, info=info, entsize=form.relocation_size)

    # Symbols

    @property
    def symbols(self) -> int:
        return self.field(".symtab", "size") // self.format.sym_size

    def symbol_at(self, number: int) -> int:
        return self.content(".symtab") + self.format.sym_size * number

    def symbol_field(self, symbol: str | int, name: str) -> int:
        number = self.symbol(symbol) if isinstance(symbol, str) else symbol
        return self.get(self.format.sym, name, self.symbol_at(number))

    def symbol(self, name: str) -> int:
        strings = self.content(".strtab")
        for number in range(1, self.symbols):
            if self.string(strings + self.symbol_field(number, "name")).decode() == name:
                return number
        raise KeyError(name)

    def symbol_of(self, section: str) -> int:
        """The section's own symbol."""
        wanted = self.section(section)
        for number in range(1, self.symbols):
            if self.symbol_field(number, "info") == 3 and self.symbol_field(number, "shndx") == wanted:
                return number
        raise KeyError(section)

    def edit_symbol(self, symbol: str | int, **values: int) -> Editor:
        number = self.symbol(symbol) if isinstance(symbol, str) else symbol
        return self.put(self.format.sym, self.symbol_at(number), **values)

    def rename(self, symbol: str, name: str) -> Editor:
        number, table = self.symbol(symbol), self.bytes_of(".strtab")
        self.replace(".strtab", table + name.encode() + b"\0")
        return self.edit_symbol(number, name=len(table))

    def string(self, at: int) -> bytes:
        return bytes(self.data[at : self.data.index(0, at)])

    # Relocations, functions

    def relocations_of(self, section: str) -> str:
        """The name of the section with a section's relocations."""
        return self.format.relocation_prefix + section

    def relocation(self, section: str, number: int, **values: int) -> Editor:
        """`section` is that of the relocations, or the one that they are for. An addend may be in the place itself."""
        form, section = self.format, section.removeprefix(self.format.relocation_prefix)
        rows = self.relocations_of(section)
        at = self.content(rows) + form.relocation_size * number
        if "addend" in values and "addend" not in form.relocation:
            self.word(section, self.get(form.relocation, "offset", at), values.pop("addend"))
        return self.put(form.relocation, at, **values)

    def drop_relocation(self, section: str, number: int) -> Editor:
        """Make a relocation ineffective. If there is no type for that, the first one is applied twice."""
        if self.kinds.none is not None:
            return self.relocation(section, number, type=self.kinds.none)
        rows, size = self.content(self.relocations_of(section)), self.format.relocation_size
        self.data[rows + size * number : rows + size * (number + 1)] = self.data[rows : rows + size]
        return self

    def function(self, **values: int) -> Editor:
        return self.put(self.format.func, self.content(".livepatch.funcs"), **values)

    def build_id(self, value: bytes, section: str = ".note.gnu.build-id") -> Editor:
        at = self.content(section) + 16
        self.data[at : at + len(value)] = value
        return self

    @property
    def kinds(self) -> Kinds:
        return KINDS[self.machine]


class Kinds(NamedTuple):
    """A machine's relocation types, by the purpose in the tests."""

    none: int | None
    relative: int  # 32 bits, relative to the place
    pointer: int  # absolute, as wide as a pointer
    others: tuple[int, ...]  # Xen knows them, too
    unknown: tuple[int, ...]


_ARM64_OTHERS = (
    *range(258, 265), 269, 270, 271, *range(274, 281), 282, 283, 284, 285, 286, 287, 288, 289, 291, 293, 299,
)  # fmt: skip
KINDS = {
    62: Kinds(0, 2, 1, (4,), (3, 9, 10, 11, 24, 41, 42, 0xFFFFFFFF)),
    183: Kinds(None, 261, 257, _ARM64_OTHERS, (0, 1, 2, 256, 273, 281, 300, 512, 1024, 0xFFFFFFFF)),
    40: Kinds(0, 3, 2, (28, 29, 43, 44), (1, 4, 10, 27, 30, 38, 40, 45, 46, 47, 255)),
}
