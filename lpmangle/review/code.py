"""A function's code without what depends on where it lies: bytes, with relocated fields set aside, and references.

A call to a function of the same section, and on x86 its address, is resolved by the assembler unless each function
has a section of its own (-ffunction-sections): no relocation is left, and the bytes say how far it is. Such fields are
found here and taken for what they are, references as any other.
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

# What is not decoded, decodes as nothing: no function of a payload is as large.
MAX_SIZE = 1 << 20
_R_X86_64_PC8 = 15  # a short jump; Xen takes no such relocation, and none is left for it
_PC8, _PC32 = Field(Struct("<B"), 0xFF, True), Field(DWORD, 0xFFFFFFFF, True)
_PREFIXES = b"\x2e\x3e\x66\xf2\xf3"


class Code(NamedTuple):
    """`content` has the bytes, 0 where a field is filled in by a reference; `references` are in the order of places."""

    content: bytes
    references: tuple[RelocatedField, ...]


class _Branch(NamedTuple):
    """A field at `at` bytes from the function's start that leads to `target` bytes from there, branch or not."""

    at: int
    type: int
    field: Field
    target: int


def code_at(places: Places, extent: Extent) -> Code | None:
    """The code of a function; None if it cannot be looked at, since the file is too tangled or has none there."""
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
            if field and field.relative:  # to the end of the instruction, which may have an immediate operand behind
                after = bisect_right(ends, at)
                addend += ends[after] - at if after < len(ends) else 4
            # The same to Xen (arch_livepatch_perform_rela); which one it is depends on the version of the assembler.
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
    """Where instructions end (of x86), and which of them lead elsewhere."""
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
    """Relative jumps and calls, those inside the function included."""
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
