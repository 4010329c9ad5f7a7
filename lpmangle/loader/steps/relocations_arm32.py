"""Relocations on arm32: xen/arch/arm/arm32/livepatch.c, arch_livepatch_perform_rel and _rela.

Only whole addresses are written (they fill in what the loader reads afterwards); instructions are checked, not patched.
Xen checks no offset here: one behind the section writes into what lies there.
"""

from struct import Struct

from lpmangle.loader.steps.relocation_table import RelocationTable, fits, signed

_DWORD = Struct("<I")
R_ARM_NONE, R_ARM_ABS32, R_ARM_REL32, R_ARM_CALL, R_ARM_JUMP24 = 0, 2, 3, 28, 29
R_ARM_MOVW_ABS_NC, R_ARM_MOVT_ABS = 43, 44


def relocate(table: RelocationTable) -> None:
    image = table.image
    for index, (offset, symbol, kind, addend) in enumerate(table.rows()):
        if not table.has_symbol(symbol, "symbol"):
            continue
        place = table.start + offset
        inside = 0 <= place - image.base <= len(image.memory) - _DWORD.size
        if table.in_place and inside:
            addend = _addend(kind, _DWORD.unpack_from(image.memory, place - image.base)[0])
        value = image.values[symbol]
        if kind in (R_ARM_CALL, R_ARM_JUMP24):
            if signed(value + addend - place, 32) not in fits(26):
                table.refuse_overflow(index, symbol)
        elif kind in (R_ARM_ABS32, R_ARM_REL32):
            if inside:
                table.write(offset, _DWORD, value + addend - (place if kind == R_ARM_REL32 else 0))
        elif kind not in (R_ARM_NONE, R_ARM_MOVW_ABS_NC, R_ARM_MOVT_ABS):
            table.refuse_type(f"#{kind:x}")


def _addend(kind: int, word: int) -> int:
    """get_addend: what stands in the place that an SHT_REL entry names."""
    return signed(word << 2, 26) if kind in (R_ARM_CALL, R_ARM_JUMP24) else signed(word, 32)
