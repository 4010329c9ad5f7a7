"""The version of a hypervisor, read from its code: what xen_major_version and others return (common/version.c)."""

from collections.abc import Callable

from lpmangle.errors import NamingError
from lpmangle.xen.machines import ARM32, ARM64, ENDBR64, Machine
from lpmangle.xen.versions import Version, parse_version

_LONGEST = 64  # XEN_EXTRAVERSION_LEN is 16

# Reads at most this many bytes at an address.
Read = Callable[[int, int], bytes]


def read_version(machine: Machine, symbols: dict[bytes, int], read: Read) -> Version | None:
    """None if the form of the code is not known."""
    returned = {ARM64: _returned_arm64, ARM32: _returned_arm32}.get(machine, _returned_x86)
    values = [
        returned(read, symbols[name]) if name in symbols else None
        for name in (b"xen_major_version", b"xen_minor_version", b"xen_extra_version")
    ]
    major, minor, extra = values
    if major is None or minor is None:
        return None
    text = read(extra, _LONGEST).partition(b"\0")[0] if extra else b""
    try:
        return parse_version(f"{major}.{minor}{text.decode('ascii', 'replace')}")
    except NamingError:
        return None


def _returned_x86(read: Read, at: int) -> int | None:
    if read(at, 4) == ENDBR64:
        at += 4
    code = read(at, 7).ljust(7, b"\0")
    if code[:1] == b"\xb8":  # mov $NUMBER, %eax
        return int.from_bytes(code[1:5], "little")
    if code[:3] == b"\x48\x8d\x05":  # lea DISPLACEMENT(%rip), %rax
        return at + 7 + int.from_bytes(code[3:], "little", signed=True)
    return None


def _returned_arm64(read: Read, at: int) -> int | None:
    first, second = _words(read, at)
    if first & 0xFFE0001F == 0x52800000:  # mov w0, #NUMBER
        return first >> 5 & 0xFFFF
    pages = (first >> 3 & 0x1FFFFC | first >> 29 & 3) << 12
    if first & 0x9F00001F == 0x90000000 and second & 0xFFC003FF == 0x91000000:  # adrp x0, PAGE; add x0, x0, #OFFSET
        pages -= (pages & 1 << 32) << 1
        return (at & ~0xFFF) + pages + (second >> 10 & 0xFFF)
    return None


def _returned_arm32(read: Read, at: int) -> int | None:
    first, second = _words(read, at)
    if first & 0xFFFFFF00 == 0xE3A00000:  # mov r0, #NUMBER, not rotated
        return first & 0xFF
    if first & 0xFFF0F000 == 0xE3000000 and second & 0xFFF0F000 == 0xE3400000:  # movw r0, #LOW; movt r0, #HIGH
        return _immediate(second) << 16 | _immediate(first)
    return None


def _immediate(instruction: int) -> int:
    return instruction >> 4 & 0xF000 | instruction & 0xFFF


def _words(read: Read, at: int) -> tuple[int, int]:
    code = read(at, 8).ljust(8, b"\0")
    return int.from_bytes(code[:4], "little"), int.from_bytes(code[4:], "little")
