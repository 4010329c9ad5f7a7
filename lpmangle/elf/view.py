"""A strict, read-only, zero-copy view of a relocatable ELF file.

Every bound is checked before it is used, so that what `parse` returns can be read without further care. Both classes
and both byte orders. Names of constants and fields are those of the System V ABI (gABI), chapter 4 "Object Files".
Sections are few (Xen accepts fewer than 1024) and become objects; symbols may be a million and stay bytes until used.
"""

import struct
import sys

from lpmangle.errors import ElfError, counted
from lpmangle.system.light import Iterable, Iterator, cached_property
from lpmangle.system.records import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Literal

    Format = Literal["B", "H", "I", "Q"]

ELFMAG = b"\x7fELF"
ELFCLASS32, ELFCLASS64 = 1, 2
ELFDATA2LSB, ELFDATA2MSB = 1, 2
EV_CURRENT = 1
ET_REL, ET_EXEC, ET_DYN, ET_CORE = 1, 2, 3, 4
ET_NAMES = {0: "ET_NONE", 1: "ET_REL", 2: "ET_EXEC", 3: "ET_DYN", 4: "ET_CORE"}
EF_ARM_EABIMASK, EF_ARM_EABI_VER5 = 0xFF000000, 0x05000000
EM_ARM, EM_X86_64, EM_AARCH64 = 40, 62, 183
EM_NAMES = {EM_ARM: "arm", EM_X86_64: "x86_64", EM_AARCH64: "aarch64"}

SHN_UNDEF, SHN_LORESERVE, SHN_ABS, SHN_COMMON = 0, 0xFF00, 0xFFF1, 0xFFF2
SHT_NULL, SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_NOTE, SHT_NOBITS = 0, 1, 2, 3, 4, 7, 8
SHT_REL, SHT_GROUP, SHT_SYMTAB_SHNDX = 9, 17, 18
SHT_LLVM_ADDRSIG = 0x6FFF4C03  # LLVM's; Xen does not read it
# Relocations in encodings that neither this module nor Xen reads.
COMPACT_RELOCATIONS = {
    19: "SHT_RELR",
    0x40000014: "SHT_CREL",
    0x60000001: "SHT_ANDROID_REL",
    0x60000002: "SHT_ANDROID_RELA",
    0x6FFFFF00: "SHT_ANDROID_RELR",
}
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_MERGE, SHF_STRINGS = 0x1, 0x2, 0x4, 0x10, 0x20
SHF_INFO_LINK, SHF_COMPRESSED = 0x40, 0x800
GRP_COMDAT = 1
STB_LOCAL, STB_GLOBAL = 0, 1
STB_NAMES = {0: "LOCAL", 1: "GLOBAL", 2: "WEAK", 10: "GNU_UNIQUE"}
STT_FUNC, STT_SECTION, STT_FILE = 2, 3, 4
STT_NAMES = {
    0: "NOTYPE", 1: "OBJECT", 2: "FUNC", 3: "SECTION", 4: "FILE", 5: "COMMON", 6: "TLS", 10: "GNU_IFUNC",
}  # fmt: skip

# Our own limit: longer names are not real names, and would let a small hostile file use much time and memory.
MAX_NAME_BYTES = 4096


class Section(NamedTuple):
    """One section header; `name` is resolved, the rest are the fields of Elf_Shdr without their `sh_`."""

    number: int
    name: str
    type: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    addralign: int
    entsize: int

    @property
    def end(self) -> int:
        """File offset just past the section's data (its own offset for SHT_NOBITS)."""
        return self.offset if self.type in (SHT_NOBITS, SHT_NULL) else self.offset + self.size

    def __str__(self) -> str:
        return f"section {self.number} ({self.name})" if self.name else f"section {self.number}"


class Symbol(NamedTuple):
    """One Elf_Sym, the fields in the order of ELF64."""

    st_name: int
    st_info: int
    st_other: int
    st_shndx: int
    st_value: int
    st_size: int

    @property
    def binding(self) -> int:
        return self.st_info >> 4

    @property
    def type(self) -> int:
        return self.st_info & 15


class Relocation(NamedTuple):
    """One Elf_Rel or Elf_Rela; `r_addend` is None for SHT_REL, where the addend is in the section that is relocated.

    `addend_at` is the file offset of the addend in both cases.
    """

    r_offset: int
    r_sym: int
    r_type: int
    r_addend: int | None
    addend_at: int


class Layout:
    """The structs of one ELF class in one byte order, and the offsets of the fields that lpmangle edits."""

    def __init__(self, is_64: bool, big_endian: bool) -> None:
        order = ">" if big_endian else "<"
        self.is_64 = is_64
        self.big_endian = big_endian
        self.word = struct.Struct(order + "I")
        self.address = struct.Struct(order + ("Q" if is_64 else "I"))
        self.ehdr = struct.Struct(order + ("HHIQQQIHHHHHH" if is_64 else "HHIIIIIHHHHHH"))
        self.shdr = struct.Struct(order + ("IIQQQQIIQQ" if is_64 else "IIIIIIIIII"))
        self.sym = struct.Struct(order + ("IBBHQQ" if is_64 else "IIIBBH"))
        self.rel = struct.Struct(order + ("QQ" if is_64 else "II"))
        self.rela = struct.Struct(order + ("QQq" if is_64 else "IIi"))
        self.ehdr_size = 16 + self.ehdr.size
        # ELF64_R_SYM, ELF64_R_TYPE and those of ELF32: r_info is a symbol's number, shifted, and a type.
        self.r_sym_shift, self.r_type_mask = (32, 0xFFFFFFFF) if is_64 else (8, 0xFF)
        # Byte offset of sh_offset in Elf_Shdr; sh_size follows it. st_name is the first field of Elf_Sym.
        self.sh_offset_at = 24 if is_64 else 16
        # Byte offset of each field in Elf_Sym, and its format (struct).
        self.sym_fields: dict[str, tuple[int, Format]] = {
            "st_name": (0, "I"),
            "st_info": (4 if is_64 else 12, "B"),
            "st_shndx": (6 if is_64 else 14, "H"),
            "st_value": (8, "Q") if is_64 else (4, "I"),
            "st_size": (16, "Q") if is_64 else (8, "I"),
        }

    def symbol_column(self, table: bytes | bytearray, field: str) -> "memoryview[int]":
        """One field, such as st_shndx, of all symbols of a table: much cheaper than all fields of each."""
        at, code = self.sym_fields[field]
        size = struct.calcsize(code)
        column = bytearray(len(table) // self.sym.size * size)
        for byte, source in self._bytes_of(at, size):
            column[byte::size] = table[source :: self.sym.size]
        return memoryview(column).cast(code)

    def put_symbol_column(self, table: bytearray, field: str, column: "memoryview[int]") -> None:
        """The reverse: write one field of all symbols of a table."""
        at, code = self.sym_fields[field]
        size, content = struct.calcsize(code), column.tobytes()
        for byte, target in self._bytes_of(at, size):
            table[target :: self.sym.size] = content[byte::size]

    def _bytes_of(self, at: int, size: int) -> Iterator[tuple[int, int]]:
        """For each byte of a number, in this machine's order, where it is in an entry that has the field at `at`."""
        reverse = self.big_endian != (sys.byteorder == "big")
        return ((byte, at + (size - 1 - byte if reverse else byte)) for byte in range(size))


class Object:
    """A parsed file. Made by `parse`; all attributes are read-only by convention.

    `data` is the whole file; `symtab` and `strtab` are the one symbol table and its string table, `section_names` is
    the string table of e_shstrndx.
    """

    def __init__(self, data: bytes, layout: Layout, machine: int, e_shoff: int) -> None:
        self.data = data
        self.layout = layout
        self.machine = machine
        self.e_shoff = e_shoff
        self.sections: list[Section] = []
        self.section_names: Section
        self.symtab: Section
        self.strtab: Section

    @property
    def symbol_count(self) -> int:
        """Symbols including the null symbol at index 0."""
        return self.symtab.size // self.layout.sym.size

    def symbols(self) -> Iterator[Symbol]:
        """All symbols in table order, the null symbol first."""
        return map(Symbol._make, self.symbol_fields())

    def symbol_fields(self) -> Iterator[tuple[int, int, int, int, int, int]]:
        """The same as plain tuples, in the order of Symbol: a third of the cost in a loop over a million."""
        rows = self.layout.sym.iter_unpack(memoryview(self.data)[self.symtab.offset : self.symtab.end])
        if self.layout.is_64:
            return rows
        return ((name, info, other, shndx, value, size) for name, value, size, info, other, shndx in rows)

    def symbol_column(self, field: str) -> "memoryview[int]":
        """One field of all symbols, such as st_shndx, in table order: much cheaper than all fields of each."""
        return self.layout.symbol_column(bytes(self.section_data(self.symtab)), field)

    def symbol(self, index: int) -> Symbol:
        """Symbol number `index`; the caller knows that 0 <= index < symbol_count."""
        fields = self.layout.sym.unpack_from(self.data, self.symbol_offset(index))
        if self.layout.is_64:
            return Symbol._make(fields)
        name, value, size, info, other, shndx = fields
        return Symbol(name, info, other, shndx, value, size)

    def symbol_offset(self, index: int) -> int:
        """File offset of symbol number `index`, which is also that of its st_name."""
        return self.symtab.offset + index * self.layout.sym.size

    def section_header_offset(self, index: int) -> int:
        """File offset of section header number `index`."""
        return self.e_shoff + index * self.layout.shdr.size

    def section_address(self, section: Section) -> int:
        """sh_addr, which means something in executables only."""
        address: int = self.layout.shdr.unpack_from(self.data, self.section_header_offset(section.number))[3]
        return address

    def place_at(self, index: int) -> int:
        """File offset of sh_offset of section header number `index`; sh_size follows it."""
        return self.section_header_offset(index) + self.layout.sh_offset_at

    def put_place(self, out: bytearray, index: int, offset: int, size: int) -> None:
        """Write sh_offset and sh_size of a section into `out`, a file with the same layout. Raises struct.error."""
        address, at = self.layout.address, self.place_at(index)
        address.pack_into(out, at, offset)
        address.pack_into(out, at + address.size, size)

    def moved(self, data: bytes) -> "Object":
        """The view of `data`: this file with more bytes after it, and sections at new places (`put_place`).

        Only these places are read, and nothing is checked: use it only for files that we have made ourselves.
        """
        view, address = Object(data, self.layout, self.machine, self.e_shoff), self.layout.address
        for section in self.sections:
            at = self.place_at(section.number)
            offset, size = (address.unpack_from(data, at + n * address.size)[0] for n in (0, 1))
            view.sections.append(section._replace(offset=offset, size=size))
        for name in ("section_names", "symtab", "strtab"):
            setattr(view, name, view.sections[getattr(self, name).number])
        return view

    def string(self, st_name: int) -> bytes:
        """The name at `st_name` in the symbol string table, without its NUL."""
        return string_at(self.data, self.strtab.offset + st_name)

    def strings(self, st_names: Iterable[int]) -> list[bytes]:
        """The same for many."""
        if self._has_long_strings:
            return [self.string(st_name) for st_name in st_names]
        data, find, base = self.data, self.data.find, self.strtab.offset
        return [data[(at := base + st_name) : find(b"\0", at)] for st_name in st_names]

    @cached_property
    def _has_long_strings(self) -> bool:
        """Whether something in the string table is too long for a name."""
        at = self.strtab.offset
        while at < self.strtab.end:
            end = self.data.rfind(b"\0", at, at + MAX_NAME_BYTES + 1)
            if end < 0:
                return True
            at = end + 1
        return False

    def symbol_name(self, index: int) -> bytes:
        """The name of symbol number `index`; the caller knows that 0 <= index < symbol_count."""
        # In both classes st_name comes first.
        return self.string(self.layout.word.unpack_from(self.data, self.symbol_offset(index))[0])

    def section_data(self, section: Section) -> memoryview:
        """The section's bytes in the file; empty for SHT_NOBITS."""
        return memoryview(self.data)[section.offset : section.end]

    def section_named(self, name: str) -> Section | None:
        """The first section of that name, as livepatch_elf_sec_by_name finds it."""
        return next((s for s in self.sections[1:] if s.name == name), None)

    def relocations(self, target: Section) -> Iterator[Relocation]:
        """All relocations that apply to `target`, in file order, from every SHT_REL and SHT_RELA section."""
        tables = [s for s in self.sections if s.type in (SHT_REL, SHT_RELA) and s.info == target.number]
        if sum(section.size for section in tables) > len(self.data):
            raise ElfError(f"{target}: its relocation tables overlap")
        for section in tables:
            entry = self.layout.rela if section.type == SHT_RELA else self.layout.rel
            if section.entsize != entry.size or section.size % entry.size:
                raise ElfError(
                    f"{section}: {counted(section.size, 'byte')} in entries of {section.entsize} is not a relocation "
                    f"table (entries have {entry.size} bytes)"
                )
            shift, mask = self.layout.r_sym_shift, self.layout.r_type_mask
            at = section.offset + 2 * self.layout.address.size
            for offset, info, *addend in entry.iter_unpack(self.section_data(section)):
                if info >> shift >= self.symbol_count:
                    raise ElfError(f"{section}: a relocation names symbol {info >> shift} of {self.symbol_count}")
                if addend:
                    yield Relocation._make((offset, info >> shift, info & mask, addend[0], at))
                else:
                    yield Relocation._make((offset, info >> shift, info & mask, None, target.offset + offset))
                at += entry.size


def text(name: bytes) -> str:
    """A name as text; bytes that are not UTF-8 become escapes."""
    return name.decode("utf-8", "backslashreplace")


def string_at(table: bytes, start: int) -> bytes:
    """The bytes from `start` to the next NUL, which the caller knows to exist."""
    end = table.find(b"\0", start, start + MAX_NAME_BYTES + 1)
    if end < 0:
        raise ElfError(f"has a name of more than {MAX_NAME_BYTES} bytes, beginning with {table[start : start + 40]!r}")
    return table[start:end]
