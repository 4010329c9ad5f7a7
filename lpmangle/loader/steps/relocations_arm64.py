"""Relocations on arm64: xen/arch/arm/arm64/livepatch.c:arch_livepatch_perform_rela.

Only data is written (the loader reads it afterwards); instructions are checked, not patched.
"""

from struct import Struct

from lpmangle.loader.steps.relocation_table import RelocationTable, fits, signed

R_AARCH64_ABS64, R_AARCH64_ABS32, R_AARCH64_ABS16 = 257, 258, 259
R_AARCH64_PREL64, R_AARCH64_PREL32, R_AARCH64_PREL16 = 260, 261, 262
_QWORD, _DWORD, _WORD = Struct("<Q"), Struct("<I"), Struct("<H")
_DATA = {
    R_AARCH64_ABS64: _QWORD, R_AARCH64_ABS32: _DWORD, R_AARCH64_ABS16: _WORD,
    R_AARCH64_PREL64: _QWORD, R_AARCH64_PREL32: _DWORD, R_AARCH64_PREL16: _WORD,
}  # fmt: skip
R_AARCH64_ADR_PREL_PG_HI21 = 275
_PAGE = 0xFFF

# Type -> (relative to the place, shift right, values that fit; None: never an overflow).
# reloc_data accepts signed and unsigned values of 16 and 32 bits; TSTBR14 is checked as if it had 19 bits.
_UNSIGNED = range(1 << 16)
_DATA_16, _DATA_32 = range(-(1 << 15), 1 << 16), range(-(1 << 31), 1 << 32)
_PLAIN: dict[int, tuple[bool, int, range | None]] = {
    R_AARCH64_ABS64: (False, 0, None), R_AARCH64_ABS32: (False, 0, _DATA_32), R_AARCH64_ABS16: (False, 0, _DATA_16),
    R_AARCH64_PREL64: (True, 0, None), R_AARCH64_PREL32: (True, 0, _DATA_32), R_AARCH64_PREL16: (True, 0, _DATA_16),
    # MOVW_UABS_G0, _NC, G1, _NC, G2, _NC, G3
    263: (False, 0, _UNSIGNED), 264: (False, 0, None), 265: (False, 16, _UNSIGNED), 266: (False, 16, None),
    267: (False, 32, _UNSIGNED), 268: (False, 32, None), 269: (False, 48, None),
    # ADR_PREL_LO21, ADR_PREL_PG_HI21 (below), _NC; ADD_ABS_LO12_NC, LDST8/16/32/64/128_ABS_LO12_NC
    274: (True, 0, fits(21)), 276: (True, 0, None), 277: (False, 0, None), 278: (False, 0, None),
    284: (False, 0, None), 285: (False, 0, None), 286: (False, 0, None), 299: (False, 0, None),
    # TSTBR14, CONDBR19, JUMP26, CALL26
    279: (True, 2, fits(19)), 280: (True, 2, fits(19)), 282: (True, 2, fits(26)), 283: (True, 2, fits(26)),
    # MOVW_PREL_*_NC, G3
    288: (True, 0, None), 290: (True, 0, None), 292: (True, 0, None), 293: (True, 0, None),
}  # fmt: skip
# MOVW_SABS_G0, G1, G2 and MOVW_PREL_G0, G1, G2: the immediate is inverted if the value is negative.
_SIGNED_MOVW = {
    270: (False, 0), 271: (False, 16), 272: (False, 32), 287: (True, 0), 289: (True, 16), 291: (True, 32),
}  # fmt: skip


def relocate(table: RelocationTable) -> None:
    for index, (offset, symbol, kind, addend) in enumerate(table.rows()):
        if not table.has_symbol(symbol):
            continue
        # Any type needs 4 bytes, that of a half-word too.
        if not table.has_place(offset, max(4, _DATA.get(kind, _DWORD).size)):
            continue
        place, value = table.start + offset, signed(table.image.values[symbol] + addend, 64)
        if kind in _PLAIN:
            relative, shift, reach = _PLAIN[kind]
            result = signed(value - place, 64) if relative else value
            overflow = reach is not None and result >> shift not in reach
            if kind in _DATA:
                table.write(offset, _DATA[kind], result)
        elif kind == R_AARCH64_ADR_PREL_PG_HI21:
            overflow = ((value & ~_PAGE) - (place & ~_PAGE)) >> 12 not in fits(21)
        elif kind in _SIGNED_MOVW:
            relative, shift = _SIGNED_MOVW[kind]
            result = signed(value - place, 64) if relative else value
            overflow = (~(result >> shift) if result < 0 else result >> shift) not in _UNSIGNED
        else:
            table.refuse_type(str(kind))
            continue
        if overflow:
            table.refuse_overflow(index, symbol)
