"""Relocations on arm32: xen/arch/arm/arm32/livepatch.c, arch_livepatch_perform, get_addend, perform_rel.

Xen does not check offsets here: one after the section's end writes into whatever is there.
"""

from lpmangle.elf import text
from lpmangle.loader.rules import Rule
from lpmangle.loader.steps.relocation_table import RelocationTable, fits
from lpmangle.xen.abi import R_ARM_ABS32
from lpmangle.xen.relocations import (
    DWORD,
    R_ARM_CALL,
    R_ARM_JUMP24,
    R_ARM_MOVT_ABS,
    R_ARM_MOVW_ABS_NC,
    R_ARM_NONE,
    R_ARM_REL32,
    arm32_addend,
    sign_extended,
)

_CALLS, _MOVES, _DATA = (R_ARM_CALL, R_ARM_JUMP24), (R_ARM_MOVW_ABS_NC, R_ARM_MOVT_ABS), (R_ARM_ABS32, R_ARM_REL32)


def relocate(table: RelocationTable) -> None:
    image, report, header = table.image, table.report, table.image.headers[table.number]
    for index, (offset, symbol, kind, addend) in enumerate(table.rows()):
        place = (table.start + offset) & image.machine.mask
        where = f"entry {index} of {text(image.names[table.number])}"
        if image.unaligned(header.offset + index * header.entsize):
            report.crash(Rule.UNALIGNED, where)
            return
        touches = kind in (*_CALLS, *_MOVES, *_DATA)
        inside = 0 <= place - image.base <= len(image.memory) - DWORD.size
        dies = Rule.UNALIGNED if image.unaligned(place) else Rule.RELOC_OUTSIDE
        # With SHT_REL, the place is read first.
        if table.in_place and touches:
            if image.unaligned(place) or not inside:
                report.crash(dies, f"{where}: {place:#x}")
                return
            addend = arm32_addend(kind, DWORD.unpack_from(image.memory, place - image.base)[0])
        if not table.has_symbol(symbol, "symbol"):
            continue
        if touches and (image.unaligned(place) or not inside):
            report.crash(dies, f"{where}: {place:#x}")
            return
        value = image.values[symbol]
        word = DWORD.unpack_from(image.memory, place - image.base)[0] if touches else 0
        if kind in _CALLS:
            distance = sign_extended(value + addend - place, 32)
            table.write(offset, DWORD, (word & 0xFF000000 if addend else word) | distance >> 2 & 0x00FFFFFE)
            if distance not in fits(26):
                table.refuse_overflow(index, symbol)
            elif distance >> 2 & 1 and symbol not in image.unresolved:  # perform_rel masks it with 0x00FFFFFE
                name = text(image.symbols[symbol][0])
                report.warn(Rule.RELOC_CALL_ODD, f"{where}, at {offset:#x}: {name or 'a section'}", symbol=name)
        elif kind in _DATA:
            table.write(offset, DWORD, value + addend - (place if kind == R_ARM_REL32 else 0))
        elif kind in _MOVES:
            half = (value >> 16 if kind == R_ARM_MOVT_ABS else value) & 0xFFFF
            table.write(offset, DWORD, (word & 0xFFF0F000 if addend else word) | half & 0xFFF | half >> 12 << 16)
            if addend:
                report.warn(Rule.RELOC_ADDEND_DROPPED, f"{where}, at {offset:#x}: {addend:#x}")
        elif kind != R_ARM_NONE:
            table.refuse_type(f"#{kind:x}")
