"""One SHT_RELA or SHT_REL section, and the messages about its entries that all machines share."""

from collections.abc import Iterator
from struct import Struct

from lpmangle import elf
from lpmangle.elf import text
from lpmangle.loader.findings import Report
from lpmangle.loader.image import Image
from lpmangle.loader.rules import Rule

# offset, symbol, type, addend (0 for SHT_REL)
Row = tuple[int, int, int, int]


class RelocationTable:
    """Section `number` of `image`, which applies to the loaded section `target`."""

    def __init__(self, image: Image, number: int, target: int, report: Report) -> None:
        self.image = image
        self.number = number
        self.target = target
        self.report = report
        self.in_place = image.headers[number].type == elf.SHT_REL
        start = image.addresses[target]
        assert start is not None
        self.start = start  # address of the target as loaded
        self.size = image.headers[target].size

    def rows(self) -> Iterator[Row]:
        """The entries in file order; the section's sizes have been checked."""
        image, header = self.image, self.image.headers[self.number]
        layout = image.machine.layout
        entry: Struct = layout.rel if self.in_place else layout.rela
        shift, mask = layout.r_sym_shift, layout.r_type_mask
        data = image.file_content(self.number)
        if image.wraps(self.number):  # up to the end of the file
            data = data[: len(data) // header.entsize * header.entsize]
        if header.entsize == entry.size:
            rows = entry.iter_unpack(data)
        else:  # a larger sh_entsize is legal: the step from one entry to the next
            rows = (entry.unpack_from(data, at) for at in range(0, len(data), header.entsize))
        if self.in_place:
            return ((offset, info >> shift, info & mask, 0) for offset, info in rows)
        return ((offset, info >> shift, info & mask, addend) for offset, info, addend in rows)

    def has_symbol(self, symbol: int, what: str = "relocation") -> bool:
        """Whether an entry's symbol has a value; if not, the entry is refused."""
        image, report = self.image, self.report
        if symbol == 0:
            report.refuse(Rule.RELOC_SYMBOL_ZERO, "Encountered STN_UNDEF")
        elif symbol >= len(image.symbols):
            report.refuse(Rule.RELOC_SYMBOL, f"Relative {what} wants symbol@{symbol} which is past end")
        elif symbol in image.ignored:
            name = text(image.symbols[symbol][0])
            report.refuse(
                Rule.RELOC_IGNORED_SYMBOL, f"Relocation against ignored symbol {name} cannot be resolved", symbol=name
            )
        else:
            image.referenced.add(symbol)
            return True
        return False

    def has_place(self, offset: int, width: int) -> bool:
        """Whether `width` bytes at `offset` are in the section; if not, the entry is refused."""
        if offset < self.size and offset + width <= self.size:
            return True
        name = text(self.image.names[self.target])
        self.report.refuse(Rule.RELOC_OFFSET, f"Relative relocation offset is past {name} section")
        return False

    def write(self, offset: int, form: Struct, value: int) -> None:
        """Store `value`, cut to the width of `form`, at `offset` of the section."""
        form.pack_into(self.image.memory, self.start - self.image.base + offset, value & (1 << 8 * form.size) - 1)

    def refuse_overflow(self, index: int, symbol: int) -> None:
        """Entry `index` cannot reach its symbol; if the symbol's address is not known, nothing is reported."""
        if symbol not in self.image.unresolved:
            image = self.image
            where = f"{text(image.names[self.number])} for {text(image.names[self.target])}"
            name = text(image.symbols[symbol][0])
            self.report.refuse(Rule.RELOC_OVERFLOW, f"Overflow in relocation {index} in {where}", name)

    def refuse_type(self, says: str) -> None:
        self.report.refuse(Rule.RELOC_TYPE, f"Unhandled relocation {says}", f"in {text(self.image.names[self.number])}")


def fits(bits: int) -> range:
    """All numbers that fit into `bits` bits as two's complement."""
    return range(-(1 << (bits - 1)), 1 << (bits - 1))
