"""Relocations on Arm: xen/arch/arm/arm64/livepatch.c and arm32/livepatch.c, arch_livepatch_perform_rel(a).

Only whole addresses are written (they fill in what the loader reads afterwards); instructions are checked, not patched.
"""

from collections.abc import Iterator
from struct import Struct

from lpmangle import elf
from lpmangle.elf import text
from lpmangle.loader.rules import Report
from lpmangle.loader.steps.structure import Image

_QWORD, _DWORD = Struct("<Q"), Struct("<I")
ABS64, PREL64 = 257, 260
_PAGE = 0xFFF


def _fits(bits: int) -> range:
    return range(-(1 << (bits - 1)), 1 << (bits - 1))


# arm64. Type -> (relative to the place, shift right, values that fit; None: never an overflow).
# reloc_data accepts signed and unsigned values of 16 and 32 bits; TSTBR14 is checked as if it had 19 bits.
_UNSIGNED = range(1 << 16)
_DATA_16, _DATA_32 = range(-(1 << 15), 1 << 16), range(-(1 << 31), 1 << 32)
ARM64: dict[int, tuple[bool, int, range | None]] = {
    ABS64: (False, 0, None), 258: (False, 0, _DATA_32), 259: (False, 0, _DATA_16),
    PREL64: (True, 0, None), 261: (True, 0, _DATA_32), 262: (True, 0, _DATA_16),
    # MOVW_UABS_G0, _NC, G1, _NC, G2, _NC, G3
    263: (False, 0, _UNSIGNED), 264: (False, 0, None), 265: (False, 16, _UNSIGNED), 266: (False, 16, None),
    267: (False, 32, _UNSIGNED), 268: (False, 32, None), 269: (False, 48, None),
    # ADR_PREL_LO21, ADR_PREL_PG_HI21 (below), _NC; ADD_ABS_LO12_NC, LDST8/16/32/64/128_ABS_LO12_NC
    274: (True, 0, _fits(21)), 276: (True, 0, None), 277: (False, 0, None), 278: (False, 0, None),
    284: (False, 0, None), 285: (False, 0, None), 286: (False, 0, None), 299: (False, 0, None),
    # TSTBR14, CONDBR19, JUMP26, CALL26
    279: (True, 2, _fits(19)), 280: (True, 2, _fits(19)), 282: (True, 2, _fits(26)), 283: (True, 2, _fits(26)),
    # MOVW_PREL_*_NC, G3
    288: (True, 0, None), 290: (True, 0, None), 292: (True, 0, None), 293: (True, 0, None),
}  # fmt: skip
ADR_PREL_PG_HI21 = 275
# MOVW_SABS_G0, G1, G2 and MOVW_PREL_G0, G1, G2: the immediate is inverted if the value is negative.
ARM64_SIGNED_MOVW = {
    270: (False, 0), 271: (False, 16), 272: (False, 32), 287: (True, 0), 289: (True, 16), 291: (True, 32),
}  # fmt: skip

R_ARM_NONE, R_ARM_ABS32, R_ARM_REL32, R_ARM_CALL, R_ARM_JUMP24 = 0, 2, 3, 28, 29
R_ARM_MOVW_ABS_NC, R_ARM_MOVT_ABS = 43, 44


def relocate_arm64(
    image: Image, number: int, target: int, rows: Iterator[tuple[int, int, int, int]], report: Report
) -> None:
    start, size = image.addresses[target], image.headers[target].size
    assert start is not None
    for index, (offset, symbol, kind, addend) in enumerate(rows):
        if not _check_symbol(image, symbol, report, "relocation"):
            continue
        # Any type needs 4 bytes, that of a half-word too.
        if offset >= size or offset + (8 if kind in (ABS64, PREL64) else 4) > size:
            report.refuse("reloc-offset", f"Relative relocation offset is past {text(image.names[target])} section")
            continue
        place, value = start + offset, _signed(image.values[symbol] + addend, 64)
        if kind in ARM64:
            relative, shift, fits = ARM64[kind]
            result = _signed(value - place, 64) if relative else value
            overflow = fits is not None and result >> shift not in fits
            if kind in (ABS64, PREL64):
                _QWORD.pack_into(image.memory, place - image.base, result & 0xFFFFFFFFFFFFFFFF)
        elif kind == ADR_PREL_PG_HI21:
            overflow = ((value & ~_PAGE) - (place & ~_PAGE)) >> 12 not in _fits(21)
        elif kind in ARM64_SIGNED_MOVW:
            relative, shift = ARM64_SIGNED_MOVW[kind]
            result = _signed(value - place, 64) if relative else value
            overflow = (~(result >> shift) if result < 0 else result >> shift) not in _UNSIGNED
        else:
            report.refuse("reloc-type", f"Unhandled relocation {kind}", f"in {text(image.names[number])}")
            continue
        if overflow and symbol not in image.unresolved:
            _overflow(image, index, number, target, report)


def relocate_arm32(
    image: Image, number: int, target: int, rows: Iterator[tuple[int, int, int, int]], report: Report
) -> None:
    """Here Xen checks no offset: one behind the section writes into what lies there."""
    start = image.addresses[target]
    assert start is not None
    in_place = image.headers[number].type == elf.SHT_REL
    for index, (offset, symbol, kind, addend) in enumerate(rows):
        if not _check_symbol(image, symbol, report, "symbol"):
            continue
        place = start + offset
        at = place - image.base
        inside = 0 <= at <= len(image.memory) - 4
        if in_place and inside:
            addend = _addend(kind, _DWORD.unpack_from(image.memory, at)[0])
        value = image.values[symbol]
        if kind in (R_ARM_CALL, R_ARM_JUMP24):
            if _signed(value + addend - place, 32) not in _fits(26) and symbol not in image.unresolved:
                _overflow(image, index, number, target, report)
        elif kind in (R_ARM_ABS32, R_ARM_REL32):
            result = value + addend - (place if kind == R_ARM_REL32 else 0)
            if inside:
                _DWORD.pack_into(image.memory, at, result & 0xFFFFFFFF)
        elif kind not in (R_ARM_NONE, R_ARM_MOVW_ABS_NC, R_ARM_MOVT_ABS):
            report.refuse("reloc-type", f"Unhandled relocation #{kind:x}", f"in {text(image.names[number])}")


def _addend(kind: int, word: int) -> int:
    """get_addend: what stands in the place that an SHT_REL entry names."""
    if kind in (R_ARM_CALL, R_ARM_JUMP24):
        return _signed(word << 2, 26)
    return _signed(word, 32)


def _check_symbol(image: Image, symbol: int, report: Report, what: str) -> bool:
    if symbol == 0:
        report.refuse("reloc-symbol-zero", "Encountered STN_UNDEF")
    elif symbol >= len(image.symbols):
        report.refuse("reloc-symbol", f"Relative {what} wants symbol@{symbol} which is past end")
    elif symbol in image.ignored:
        name = text(image.symbols[symbol][0])
        report.refuse(
            "reloc-ignored-symbol", f"Relocation against ignored symbol {name} cannot be resolved", symbol=name
        )
    else:
        return True
    return False


def _overflow(image: Image, index: int, number: int, target: int, report: Report) -> None:
    where = f"{text(image.names[number])} for {text(image.names[target])}"
    report.refuse("reloc-overflow", f"Overflow in relocation {index} in {where}")


def _signed(number: int, bits: int) -> int:
    return (number + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))
