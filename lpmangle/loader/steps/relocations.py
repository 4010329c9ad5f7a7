"""Relocations: livepatch_elf.c:livepatch_elf_perform_relocs and the x86 part, xen/arch/x86/livepatch.c."""

from collections.abc import Callable, Iterator
from struct import Struct

from lpmangle import elf
from lpmangle.elf import text
from lpmangle.loader.rules import Report
from lpmangle.loader.steps.relocations_arm import relocate_arm32, relocate_arm64
from lpmangle.loader.steps.structure import Image

R_X86_64_NONE, R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32 = 0, 1, 2, 4
_QWORD, _DWORD = Struct("<Q"), Struct("<I")

# offset, symbol, type, addend (0 for SHT_REL)
Row = tuple[int, int, int, int]
Relocate = Callable[[Image, int, int, Iterator[Row], Report], None]


def perform_relocations(image: Image, report: Report, only_into: int | None = None) -> None:
    """Every SHT_RELA and SHT_REL section, in index order; with `only_into` those of that section alone."""
    relocate: Relocate = {
        elf.EM_X86_64: _relocate_x86,
        elf.EM_AARCH64: relocate_arm64,
        elf.EM_ARM: relocate_arm32,
    }[image.machine.e_machine]
    for number in range(1, len(image.headers)):
        header = image.headers[number]
        if header.type not in (elf.SHT_RELA, elf.SHT_REL):
            continue
        target = header.info
        if only_into not in (None, target) or target >= len(image.headers):
            continue
        if target == 0:
            report.crash("reloc-target-zero", f"{text(image.names[number])}: perform_relocs follows a NULL pointer")
            return
        if image.addresses[target] is None:
            continue
        if header.link != image.symtab:
            says = f"Relative link of {text(image.names[number])} is incorrect ({_signed(header.link)}, "
            report.refuse("reloc-link", says + f"expected={image.symtab})")
        elif header.size:
            entry = image.machine.layout.rela if header.type == elf.SHT_RELA else image.machine.layout.rel
            if header.entsize < entry.size or header.size % header.entsize:
                report.refuse("reloc-header", "Section relative header is corrupted", text(image.names[number]))
            elif image.wraps(number):
                report.crash("section-wraps", f"section {number}: Xen reads far outside the file")
                return
            elif image.machine.e_machine == elf.EM_X86_64 and header.type == elf.SHT_REL:
                report.refuse("reloc-rel", "SHT_REL relocation unsupported", text(image.names[number]))
            elif image.machine.e_machine == elf.EM_AARCH64 and header.type == elf.SHT_REL:
                report.refuse("reloc-rel-arm64", detail=text(image.names[number]))
            else:
                relocate(image, number, target, _rows(image, number, entry), report)


def _rows(image: Image, number: int, entry: Struct) -> Iterator[Row]:
    header, is_64 = image.headers[number], image.machine.is_64
    shift, mask = (32, 0xFFFFFFFF) if is_64 else (8, 0xFF)
    data = image.file_content(number)
    if header.entsize == entry.size:
        rows = entry.iter_unpack(data)
    else:  # a larger one is legal: the step from one entry to the next
        rows = (entry.unpack_from(data, at) for at in range(0, header.size, header.entsize))
    if header.type == elf.SHT_RELA:
        return ((offset, info >> shift, info & mask, addend) for offset, info, addend in rows)
    return ((offset, info >> shift, info & mask, 0) for offset, info in rows)


def _relocate_x86(image: Image, number: int, target: int, rows: Iterator[Row], report: Report) -> None:
    """arch_livepatch_perform_rela."""
    start, size = image.addresses[target], image.headers[target].size
    assert start is not None
    count, values, ignored, unresolved = len(image.symbols), image.values, image.ignored, image.unresolved
    memory, base = image.memory, image.base
    for index, (offset, symbol, kind, addend) in enumerate(rows):
        if symbol == 0:
            report.refuse("reloc-symbol-zero", "Encountered STN_UNDEF")
        elif symbol >= count:
            report.refuse("reloc-symbol", f"Relative relocation wants symbol@{symbol} which is past end")
        elif symbol in ignored:
            name = text(image.symbols[symbol][0])
            report.refuse(
                "reloc-ignored-symbol", f"Relocation against ignored symbol {name} cannot be resolved", symbol=name
            )
        elif kind == R_X86_64_NONE:
            pass
        elif kind in (R_X86_64_PC32, R_X86_64_PLT32):
            if offset >= size or offset + 4 > size:
                _past_end(image, target, report)
                continue
            value = values[symbol] + addend - (start + offset)
            # Xen computes in 64 bits: a value that wraps around is as good as any.
            signed = (value + (1 << 63)) % (1 << 64) - (1 << 63)
            if not -(1 << 31) <= signed < 1 << 31 and symbol not in unresolved:
                _overflow(image, index, number, target, symbol, report)
                continue
            _DWORD.pack_into(memory, start - base + offset, value & 0xFFFFFFFF)
        elif kind == R_X86_64_64:
            if offset >= size or offset + 8 > size:
                _past_end(image, target, report)
                continue
            _QWORD.pack_into(memory, start - base + offset, (values[symbol] + addend) & 0xFFFFFFFFFFFFFFFF)
        else:
            report.refuse("reloc-type", f"Unhandled relocation {kind}", f"in {text(image.names[number])}")


def _past_end(image: Image, target: int, report: Report) -> None:
    report.refuse("reloc-offset", f"Relative relocation offset is past {text(image.names[target])} section")


def _overflow(image: Image, index: int, number: int, target: int, symbol: int, report: Report) -> None:
    where = f"{text(image.names[number])} for {text(image.names[target])}"
    report.refuse("reloc-overflow", f"Overflow in relocation {index} in {where}", text(image.symbols[symbol][0]))


def _signed(number: int) -> int:
    """`%d` of an unsigned word."""
    return number - (1 << 32) if number >> 31 else number
