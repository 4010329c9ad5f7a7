"""A function's code without what depends on its address: bytes, with relocated fields set to 0, and references.

The assembler resolves calls to functions of the same section, and on x86 also their addresses, unless each function has
a section of its own (-ffunction-sections): there is no relocation, and the bytes have the distance. Such fields are
found here, and treated as references like any other.
"""

from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from lpmangle import elf
from lpmangle.loader import instructions
from lpmangle.review.identity import Extent, Places, RelocatedField, clear
from lpmangle.xen.relocations import (
    DWORD,
    R_AARCH64_CALL26,
    R_AARCH64_CONDBR19,
    R_AARCH64_JUMP26,
    R_ARM_CALL,
    R_ARM_JUMP24,
    R_X86_64_PC32,
    R_X86_64_PLT32,
    Field,
    sign_extended,
)

# Larger code is not decoded: no function of a payload is as large.
MAX_SIZE = 1 << 20
_R_X86_64_PC8 = 15  # a short jump; Xen does not accept such a relocation, and none is left for it
_PC8, _PC32 = Field(Struct("<B"), 0xFF, True), Field(DWORD, 0xFFFFFFFF, True)
_PREFIXES = b"\x2e\x3e\x66\xf2\xf3"


class Code(NamedTuple):
    """`content` has the bytes, 0 where a reference fills a field in; `references` are in the order of their places."""

    content: bytes
    references: tuple[RelocatedField, ...]


class _Branch(NamedTuple):
    """A field `at` bytes from the function's start that refers to `target` bytes from there; not always a branch."""

    at: int
    type: int
    field: Field
    target: int


def code_at(places: Places, extent: Extent) -> Code | None:
    """The code of a function; None if the file has none there, or is too tangled."""
    view, section = places.view, places.view.sections[extent.section]
    size = extent.end - extent.start
    start = section.offset + extent.start
    if section.type == elf.SHT_NOBITS or not 0 < size <= MAX_SIZE or not section.offset <= start <= section.end - size:
        return None
    relocations = places.relocations_in(extent.section, extent.start, extent.end)
    if not places.afford(4 * size + 64 * len(relocations)):
        return None
    raw = view.data[start : start + size]
    content = bytearray(places.masked(extent.section, extent.start, extent.end, relocations))
    taken = {relocation.r_offset - extent.start for relocation in relocations}
    x86 = view.machine == elf.EM_X86_64
    ends, branches = _decoded(view.machine, raw)
    references = []
    for relocation in relocations:
        at, kind = relocation.r_offset - extent.start, relocation.r_type
        addend, field = places.addend(relocation, extent.section), places.fields.get(kind)
        if x86:
            if (
                field and field.relative
            ):  # from the end of the instruction, which may have an immediate operand after it
                after = bisect_right(ends, at)
                addend += ends[after] - at if after < len(ends) else 4
            # Xen treats both alike (arch_livepatch_perform_rela); the version of the assembler decides which one it is.
            kind = R_X86_64_PC32 if kind == R_X86_64_PLT32 else kind
        references.append(RelocatedField(at, kind, places.target(relocation.r_sym, addend)))
    for branch in branches:
        if branch.at in taken or 0 <= branch.target < size:
            continue
        if 0 <= extent.start + branch.target < section.size:
            clear(content, branch.at, branch.field)
            target = places.place(extent.section, extent.start + branch.target)
            references.append(RelocatedField(branch.at, branch.type, target))
    return Code(bytes(content), tuple(sorted(references, key=_place)))


@lru_cache(maxsize=64)  # the same function in two payloads, one after the other
def _decoded(machine: int, code: bytes) -> tuple[list[int], list[_Branch]]:
    """Where instructions end (on x86), and which of them refer to other places."""
    ends = _ends(code) if machine == elf.EM_X86_64 else []
    return ends, list(_branches(machine, code, ends))


def _place(reference: RelocatedField) -> int:
    return reference.at


def _ends(code: bytes) -> list[int]:
    """Where the instructions of x86 code end, as far as they are known."""
    ends, at = [], 0
    while at < len(code) and (size := instructions.length(code[at : at + instructions.LONGEST])):
        at += size
        ends.append(at)
    return ends


def _branches(machine: int, code: bytes, ends: list[int]) -> Iterator[_Branch]:
    """Relative jumps and calls, including those inside the function."""
    if machine == elf.EM_X86_64:
        yield from _branches_x86(code, ends)
    elif machine in (elf.EM_AARCH64, elf.EM_ARM):
        words = DWORD.iter_unpack(memoryview(code)[: len(code) & ~3])
        decode = _arm64 if machine == elf.EM_AARCH64 else _arm32
        for number, (word,) in enumerate(words):
            if found := decode(word):
                kind, mask, distance = found
                yield _Branch(4 * number, kind, Field(DWORD, mask, True), 4 * number + distance)


def _branches_x86(code: bytes, ends: list[int]) -> Iterator[_Branch]:
    start = 0
    for end in ends:
        opcode = code[start:end].lstrip(_PREFIXES)
        near = opcode[:1] in (b"\xe8", b"\xe9") or (opcode[:1] == b"\x0f" and opcode[1] & 0xF0 == 0x80)
        if near and end - start > 4:
            (distance,) = DWORD.unpack_from(code, end - 4)
            yield _Branch(end - 4, R_X86_64_PC32, _PC32, end + sign_extended(distance, 32))
        elif field := instructions.rip_field(code[start:end]):
            # The address of a function of the same section, which the assembler knows as well.
            (distance,) = DWORD.unpack_from(code, start + field)
            yield _Branch(start + field, R_X86_64_PC32, _PC32, end + sign_extended(distance, 32))
        elif opcode and (opcode[0] == 0xEB or opcode[0] & 0xF0 == 0x70):
            yield _Branch(end - 1, _R_X86_64_PC8, _PC8, end + sign_extended(code[end - 1], 8))
        start = end


def _arm64(word: int) -> tuple[int, int, int] | None:
    """Relocation type, bits and distance of B, BL, B.cond, CBZ and CBNZ (Arm ARM, C6.2)."""
    if word & 0x7C000000 == 0x14000000:
        kind = R_AARCH64_CALL26 if word >> 31 else R_AARCH64_JUMP26
        return kind, 0x03FFFFFF, 4 * sign_extended(word, 26)
    if word & 0xFF000010 == 0x54000000 or word & 0x7E000000 == 0x34000000:
        return R_AARCH64_CONDBR19, 0x00FFFFE0, 4 * sign_extended(word >> 5, 19)
    return None


def _arm32(word: int) -> tuple[int, int, int] | None:
    """Relocation type, bits and distance of B and BL; the processor is 8 bytes ahead (Arm ARM, A8.8.18, A8.8.25)."""
    if word & 0x0E000000 != 0x0A000000 or word >> 28 == 0xF:
        return None
    kind = R_ARM_CALL if word & 0x01000000 and word >> 28 == 0xE else R_ARM_JUMP24
    return kind, 0x00FFFFFF, 4 * sign_extended(word, 24) + 8
