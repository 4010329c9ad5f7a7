"""What a relocation fills in, by machine and type, for the types that Xen supports.

x86: xen/arch/x86/livepatch.c:arch_livepatch_perform_rela; arm64 and arm32: arch_livepatch_perform_rela and
arch_livepatch_perform in xen/arch/arm/arm{64,32}/livepatch.c. Names of types are those of the psABIs.
"""

from struct import Struct
from typing import NamedTuple

from lpmangle import elf
from lpmangle.xen.abi import R_AARCH64_ABS64, R_ARM_ABS32, R_X86_64_64

R_X86_64_NONE, R_X86_64_PC32, R_X86_64_PLT32 = 0, 2, 4
R_AARCH64_ABS32, R_AARCH64_ABS16 = 258, 259
R_AARCH64_PREL64, R_AARCH64_PREL32, R_AARCH64_PREL16 = 260, 261, 262
R_AARCH64_ADR_PREL_PG_HI21 = 275
R_AARCH64_TSTBR14, R_AARCH64_CONDBR19, R_AARCH64_JUMP26, R_AARCH64_CALL26 = 279, 280, 282, 283
R_ARM_NONE, R_ARM_REL32, R_ARM_CALL, R_ARM_JUMP24 = 0, 3, 28, 29
R_ARM_MOVW_ABS_NC, R_ARM_MOVT_ABS = 43, 44

QWORD, DWORD, HALF = Struct("<Q"), Struct("<I"), Struct("<H")


class Field(NamedTuple):
    """The bits `mask` of the word `form` at a relocation's place; `relative` if the place's address is subtracted."""

    form: Struct
    mask: int
    relative: bool

    @property
    def is_data(self) -> bool:
        """Whether it is a whole word, and not a part of an instruction."""
        return self.mask == (1 << 8 * self.form.size) - 1


def _data(form: Struct, relative: bool) -> Field:
    return Field(form, (1 << 8 * form.size) - 1, relative)


_X86_64 = {
    R_X86_64_64: _data(QWORD, False),
    R_X86_64_PC32: _data(DWORD, True),
    R_X86_64_PLT32: _data(DWORD, True),
}
# Immediate operands of A64 instructions, by their bits (Arm ARM, C4).
_IMM16, _ADR, _IMM12, _IMM14, _IMM19, _IMM26 = 0x1FFFE0, 0x60FFFFE0, 0x3FFC00, 0x7FFE0, 0xFFFFE0, 0x3FFFFFF
_ARM64 = {
    R_AARCH64_ABS64: _data(QWORD, False),
    R_AARCH64_ABS32: _data(DWORD, False),
    R_AARCH64_ABS16: _data(HALF, False),
    R_AARCH64_PREL64: _data(QWORD, True),
    R_AARCH64_PREL32: _data(DWORD, True),
    R_AARCH64_PREL16: _data(HALF, True),
    # MOVW_UABS_G0 to G3, MOVW_SABS_G0 to G2
    **{kind: Field(DWORD, _IMM16, False) for kind in range(263, 273)},
    # ADR_PREL_LO21, ADR_PREL_PG_HI21, _NC
    **{kind: Field(DWORD, _ADR, True) for kind in (274, R_AARCH64_ADR_PREL_PG_HI21, 276)},
    # ADD_ABS_LO12_NC, LDST8/16/32/64/128_ABS_LO12_NC
    **{kind: Field(DWORD, _IMM12, False) for kind in (277, 278, 284, 285, 286, 299)},
    R_AARCH64_TSTBR14: Field(DWORD, _IMM14, True),
    R_AARCH64_CONDBR19: Field(DWORD, _IMM19, True),
    R_AARCH64_JUMP26: Field(DWORD, _IMM26, True),
    R_AARCH64_CALL26: Field(DWORD, _IMM26, True),
    # MOVW_PREL_G0 to G3
    **{kind: Field(DWORD, _IMM16, True) for kind in range(287, 294)},
}
_ARM32 = {
    R_ARM_ABS32: _data(DWORD, False),
    R_ARM_REL32: _data(DWORD, True),
    R_ARM_CALL: Field(DWORD, 0x00FFFFFF, True),
    R_ARM_JUMP24: Field(DWORD, 0x00FFFFFF, True),
    R_ARM_MOVW_ABS_NC: Field(DWORD, 0x000F0FFF, False),
    R_ARM_MOVT_ABS: Field(DWORD, 0x000F0FFF, False),
}
FIELDS: dict[int, dict[int, Field]] = {elf.EM_X86_64: _X86_64, elf.EM_AARCH64: _ARM64, elf.EM_ARM: _ARM32}


def arm32_addend(kind: int, word: int) -> int:
    """xen/arch/arm/arm32/livepatch.c:get_addend: the addend at the place that an SHT_REL entry names."""
    if kind in (R_ARM_CALL, R_ARM_JUMP24):
        return sign_extended(word << 2, 26)
    if kind in (R_ARM_MOVW_ABS_NC, R_ARM_MOVT_ABS):
        return sign_extended(word >> 4 & 0xF000 | word & 0xFFF, 16)
    return sign_extended(word, 32)


def sign_extended(number: int, bits: int) -> int:
    """The low `bits` of a number, read as two's complement."""
    return (number + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))
