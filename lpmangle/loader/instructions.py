"""How long x86-64 instructions are (Intel SDM volume 2, chapter 2 and appendix A); and nothing else about them."""

from collections.abc import Iterable

LONGEST = 15
_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")


def _set(*parts: int | Iterable[int]) -> frozenset[int]:
    return frozenset(code for part in parts for code in ((part,) if isinstance(part, int) else part))


# One-byte opcodes: with ModRM, with an immediate of 1 byte, with one of the operand's size (2 or 4), invalid ones.
_MODRM = _set(
    *(range(row, row + 4) for row in range(0, 0x40, 8)),
    *(0x63, 0x69, 0x6B, range(0x80, 0x90), 0xC0, 0xC1, 0xC6, 0xC7, range(0xD0, 0xD4), range(0xD8, 0xE0)),
    *(0xF6, 0xF7, 0xFE, 0xFF),
)
_BYTE = _set(
    range(4, 0x40, 8), 0x6A, 0x6B, range(0x70, 0x81), 0x83, 0xA8, range(0xB0, 0xB8), 0xC0, 0xC1, 0xC6, 0xCD,
    range(0xE0, 0xE8), 0xEB,
)  # fmt: skip
_OPERAND = _set(range(5, 0x40, 8), 0x68, 0x69, 0x81, 0xA9, range(0xB8, 0xC0), 0xC7)
_OTHER = {0xC2: 2, 0xCA: 2, 0xC8: 3, 0xE8: 4, 0xE9: 4}
_INVALID = _set(
    *(0x06, 0x07, 0x0E, 0x16, 0x17, 0x1E, 0x1F, 0x27, 0x2F, 0x37, 0x3F, 0x60, 0x61, 0x82, 0x9A, 0xCE),
    *(0xD4, 0xD5, 0xD6, 0xEA),
)
# Opcodes after 0F: without ModRM, with an immediate of 1 byte, invalid ones.
_PLAIN_0F = _set(
    *(range(0x05, 0x0A), 0x0B, 0x0E, range(0x30, 0x36), 0x37, 0x77, range(0x80, 0x90)),
    *(range(0xA0, 0xA3), range(0xA8, 0xAB), range(0xC8, 0xD0)),
)
_BYTE_0F = _set(0x0F, range(0x70, 0x74), 0xA4, 0xAC, 0xBA, 0xC2, range(0xC4, 0xC7))
_INVALID_0F = _set(0x04, 0x0A, 0x0C, range(0x24, 0x28), 0x36, range(0x3B, 0x40), 0xA6, 0xA7)


def length(code: bytes) -> int:
    """Length in bytes of the instruction at the start of `code`; 0 if it is not known, or `code` ends inside it."""
    try:
        found, _ = _decode(code)
    except IndexError:
        return 0
    return found if found <= min(len(code), LONGEST) else 0


def rip_field(code: bytes) -> int:
    """Offset of the 4-byte displacement from the end of the instruction at the start of `code` to its operand.

    0 if its operand is not relative to RIP (SDM volume 2, 2.2.1.6: ModRM with mod 0 and r/m 5).
    """
    try:
        _, modrm = _decode(code)
        return modrm + 1 if modrm and code[modrm] & 0xC7 == 5 else 0
    except IndexError:
        return 0


def _decode(code: bytes) -> tuple[int, int]:
    """The length, and the offset of ModRM; 0 if there is none, or it is not known."""
    at, small, short_address = 0, False, False
    while code[at] in _PREFIXES:
        small, short_address = small or code[at] == 0x66, short_address or code[at] == 0x67
        at += 1
    rex = code[at] if code[at] & 0xF0 == 0x40 else 0
    at += bool(rex)
    opcode = code[at]
    at += 1
    operand = 2 if small and not rex & 8 else 4
    if opcode in (0xC4, 0xC5, 0x62):  # VEX, EVEX: the map is in the prefix
        table = 1 if opcode == 0xC5 else code[at] & (0x1F if opcode == 0xC4 else 7)
        at += {0xC5: 1, 0xC4: 2, 0x62: 3}[opcode]
        opcode = code[at]
        if table == 1 and opcode == 0x77:
            return at + 1, 0
        immediate = int(table == 3 or (table == 1 and opcode in _BYTE_0F))
        return (_behind_modrm(code, at + 1) + immediate, at + 1) if 1 <= table <= 6 else (0, 0)
    if opcode == 0x0F:
        opcode = code[at]
        at += 1
        if opcode in (0x38, 0x3A):
            return _behind_modrm(code, at + 1) + (opcode == 0x3A), at + 1
        if opcode in _INVALID_0F:
            return 0, 0
        if opcode in _PLAIN_0F:
            return at + (4 if 0x80 <= opcode < 0x90 else 0), 0
        if 0x20 <= opcode < 0x24:  # MOV of control and debug registers: ModRM has only registers
            return at + 1, 0
        return _behind_modrm(code, at) + (opcode in _BYTE_0F), at
    if opcode in _INVALID or (opcode == 0x8F and code[at] & 0x38):  # 8F with anything else is XOP
        return 0, 0
    immediate = _OTHER.get(opcode, 0)
    if opcode in _BYTE:
        immediate = 1
    elif opcode in _OPERAND:
        immediate = 8 if 0xB8 <= opcode < 0xC0 and rex & 8 else operand
    elif 0xA0 <= opcode < 0xA4:
        immediate = 4 if short_address else 8
    elif opcode in (0xF6, 0xF7) and code[at] & 0x30 == 0:  # TEST
        immediate = 1 if opcode == 0xF6 else operand
    if opcode in _MODRM:
        return _behind_modrm(code, at) + immediate, at
    return at + immediate, 0


def _behind_modrm(code: bytes, at: int) -> int:
    """The offset after ModRM, SIB and displacement."""
    mode, register = code[at] >> 6, code[at] & 7
    at += 1
    if mode == 3:
        return at
    base = register
    if register == 4:  # SIB
        base = code[at] & 7
        at += 1
    if mode == 1:
        return at + 1
    # Without a base, or relative to RIP.
    return at + (4 if mode == 2 or base == 5 else 0)
