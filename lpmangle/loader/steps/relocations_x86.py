"""Relocations on x86_64: xen/arch/x86/livepatch.c:arch_livepatch_perform_rela."""

from lpmangle.loader.steps.relocation_table import RelocationTable, fits
from lpmangle.xen.abi import R_X86_64_64
from lpmangle.xen.relocations import (
    DWORD,
    QWORD,
    R_X86_64_NONE,
    R_X86_64_PC32,
    R_X86_64_PLT32,
    sign_extended,
)

_REACH = fits(32)


def relocate(table: RelocationTable) -> None:
    values, start = table.image.values, table.start
    for index, (offset, symbol, kind, addend) in enumerate(table.rows()):
        if not table.has_symbol(symbol):
            continue
        if kind in (R_X86_64_PC32, R_X86_64_PLT32):
            if table.has_place(offset, 4):
                # Xen computes in 64 bits, and values may wrap around.
                value = sign_extended(values[symbol] + addend - (start + offset), 64)
                if value in _REACH or symbol in table.image.unresolved:
                    table.write(offset, DWORD, value)
                else:
                    table.refuse_overflow(index, symbol)
        elif kind == R_X86_64_64:
            if table.has_place(offset, 8):
                table.write(offset, QWORD, values[symbol] + addend)
        elif kind != R_X86_64_NONE:
            table.refuse_type(str(kind))
