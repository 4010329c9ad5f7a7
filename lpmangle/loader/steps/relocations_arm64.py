"""Relocations on arm64: xen/arch/arm/arm64/livepatch.c:arch_livepatch_perform_rela.

Only data is written (the loader reads it afterwards); instructions are checked, not patched.
"""

from lpmangle import elf
from lpmangle.loader.steps.relocation_table import RelocationTable, fits
from lpmangle.xen.abi import R_AARCH64_ABS64
from lpmangle.xen.relocations import (
    FIELDS,
    R_AARCH64_ABS16,
    R_AARCH64_ABS32,
    R_AARCH64_ADR_PREL_PG_HI21,
    R_AARCH64_CALL26,
    R_AARCH64_CONDBR19,
    R_AARCH64_JUMP26,
    R_AARCH64_PREL16,
    R_AARCH64_PREL32,
    R_AARCH64_PREL64,
    R_AARCH64_TSTBR14,
    sign_extended,
)

_FIELDS = FIELDS[elf.EM_AARCH64]
_PAGE = 0xFFF

# Type -> (shift right, values that fit; None: never an overflow).
# reloc_data accepts signed and unsigned values of 16 and 32 bits; TSTBR14 is checked as if it had 19 bits.
_UNSIGNED = range(1 << 16)
_DATA_16, _DATA_32 = range(-(1 << 15), 1 << 16), range(-(1 << 31), 1 << 32)
_PLAIN: dict[int, tuple[int, range | None]] = {
    R_AARCH64_ABS64: (0, None), R_AARCH64_ABS32: (0, _DATA_32), R_AARCH64_ABS16: (0, _DATA_16),
    R_AARCH64_PREL64: (0, None), R_AARCH64_PREL32: (0, _DATA_32), R_AARCH64_PREL16: (0, _DATA_16),
    # MOVW_UABS_G0, _NC, G1, _NC, G2, _NC, G3
    263: (0, _UNSIGNED), 264: (0, None), 265: (16, _UNSIGNED), 266: (16, None),
    267: (32, _UNSIGNED), 268: (32, None), 269: (48, None),
    # ADR_PREL_LO21, ADR_PREL_PG_HI21 (below), _NC; ADD_ABS_LO12_NC, LDST8/16/32/64/128_ABS_LO12_NC
    274: (0, fits(21)), 276: (0, None), 277: (0, None), 278: (0, None),
    284: (0, None), 285: (0, None), 286: (0, None), 299: (0, None),
    R_AARCH64_TSTBR14: (2, fits(19)), R_AARCH64_CONDBR19: (2, fits(19)),
    R_AARCH64_JUMP26: (2, fits(26)), R_AARCH64_CALL26: (2, fits(26)),
    # MOVW_PREL_*_NC, G3
    288: (0, None), 290: (0, None), 292: (0, None), 293: (0, None),
}  # fmt: skip
# MOVW_SABS_G0, G1, G2 and MOVW_PREL_G0, G1, G2: the immediate is inverted if the value is negative.
_SIGNED_MOVW = {270: 0, 271: 16, 272: 32, 287: 0, 289: 16, 291: 32}


def relocate(table: RelocationTable) -> None:
    for index, (offset, symbol, kind, addend) in enumerate(table.rows()):
        if not table.has_symbol(symbol):
            continue
        field = _FIELDS.get(kind)
        # Every type needs 4 bytes, even that of a half-word.
        if not table.has_place(offset, max(4, field.form.size if field else 0)):
            continue
        place, value = table.start + offset, sign_extended(table.image.values[symbol] + addend, 64)
        result = sign_extended(value - place, 64) if field and field.relative else value
        if field and kind in _PLAIN:
            shift, reach = _PLAIN[kind]
            overflow = reach is not None and result >> shift not in reach
            if field.is_data:
                table.write(offset, field.form, result)
        elif kind == R_AARCH64_ADR_PREL_PG_HI21:
            overflow = ((value & ~_PAGE) - (place & ~_PAGE)) >> 12 not in fits(21)
        elif kind in _SIGNED_MOVW:
            shift = _SIGNED_MOVW[kind]
            overflow = (~(result >> shift) if result < 0 else result >> shift) not in _UNSIGNED
        else:
            table.refuse_type(str(kind))
            continue
        if overflow:
            table.refuse_overflow(index, symbol)
