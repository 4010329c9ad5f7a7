"""The rules on Arm, on payloads of the corpus, against xen/arch/arm/{arm32,arm64}/livepatch.c and livepatch_elf.c."""

from __future__ import annotations

import struct

import pytest
from corpus import Item
from xen.editor import Editor

from lpmangle import elf
from lpmangle.loader import State, Upload, Verdict, check_upload
from lpmangle.xen.versions import parse_version

ARM64, ARM32 = "aarch64-gcc-ld", "arm-gcc-ld"
NOTHING_KNOWN = "4.17"
STT_SECTION = 3


def check(data: bytes | bytearray, version: str = NOTHING_KNOWN) -> Verdict:
    """By the rules alone: there is no table of a hypervisor on Arm here."""
    return check_upload(Upload("two", bytes(data)), State(None, parse_version(version)))


def says(data: bytes | bytearray, version: str = NOTHING_KNOWN) -> tuple[int, str]:
    first = check(data, version).first
    return (first.errno, first.message.removeprefix("livepatch: two: ")) if first else (0, "")


class Editor32:
    """The little of Editor that is needed for 32-bit payloads."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.view = elf.parse(data)

    def put(self, at: int, form: str, value: int) -> Editor32:
        struct.pack_into("<" + form, self.data, at, value)
        return self

    def section(self, name: str) -> elf.Section:
        found = self.view.section_named(name)
        assert found
        return found

    def relocations(self, name: str) -> int:
        return self.section(name).offset


@pytest.fixture
def arm64(corpus: dict[str, Item]) -> Editor:
    return Editor(corpus[ARM64].path.read_bytes())


@pytest.fixture
def arm32(corpus: dict[str, Item]) -> Editor32:
    return Editor32(corpus[ARM32].path.read_bytes())


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "arm"])
def test_payloads_of_livepatch_build_are_taken(corpus: dict[str, Item], machine: str) -> None:
    """What is made as livepatch-build makes it; the others have no depends, or are of version 1."""
    for name, item in corpus.items():
        spec = item.spec
        if spec.machine != machine or not spec.linker or not spec.add_sections:
            continue
        verdict = check(item.path.read_bytes())
        if spec.version == 1:
            assert " of .livepatch.funcs (must be multiple of " in says(item.path.read_bytes())[1], name
        elif spec.placeholder == 0xFFF1 and machine != "arm":
            assert verdict.first  # an absolute address of 0x1000 is out of the reach of a jump
            assert verdict.first.rule == "reloc-overflow", name
        elif machine == "arm" and spec.compiler == "clang":
            # Unwind tables, which Xen loads but has no relocations for.
            assert says(item.path.read_bytes()) == (95, "Unhandled relocation #2a"), name  # R_ARM_PREL31
        elif spec.debug:
            assert verdict.first is None or verdict.first.rule == "too-large", name
        else:
            assert verdict.first is None, (name, verdict.first)


def test_big_endian(corpus: dict[str, Item]) -> None:
    """e_version does not read as 1."""
    assert says(corpus["aarch64_be-clang-ld"].path.read_bytes()) == (95, "Invalid ELF payload")


def test_one_hypervisor_is_one_machine(corpus: dict[str, Item]) -> None:
    state = State()
    check_upload(Upload("one", corpus[ARM64].path.read_bytes()), state)
    verdict = check_upload(Upload("two", corpus["x86_64-gcc-ld"].path.read_bytes()), state)
    assert verdict.first
    assert verdict.first.message == "livepatch: two: Unsupported ELF Machine type"


def test_arm64_does_not_look_at_the_byte_order(arm64: Editor) -> None:
    assert check(arm64.data).first is None
    arm64.data[5] = 2
    assert check(arm64.data).first is None


def test_arm32_wants_the_eabi(arm32: Editor32) -> None:
    assert says(arm32.put(36, "I", 0x04000400).data) == (95, "Unsupported ELF EABI(4000400)")


def test_thumb(arm32: Editor32, arm64: Editor) -> None:
    """$t refuses the payload on arm32; on arm64 it is a symbol like any other."""
    names = arm32.view.strtab
    at = bytes(arm32.data).index(b"\0$a", names.offset, names.end)
    arm32.data[at + 2] = ord("t")
    assert says(arm32.data) == (22, "Symbol '$t' should not be in payload")
    name = next(n for n in range(1, arm64.symbols) if arm64.string(_name(arm64, n)) == b"$x")
    arm64.data[_name(arm64, name) + 1] = ord("t")
    assert check(arm64.data).first is None


def _name(e: Editor, symbol: int) -> int:
    at = e.content(".symtab") + 24 * symbol
    return e.content(".strtab") + int.from_bytes(e.data[at : at + 4], "little")


def test_no_exception_tables(arm64: Editor) -> None:
    assert says(arm64.add(".ex_table", bytes(8)).data) == (95, "We don't support .ex_table")


def test_sizes_on_arm(arm64: Editor) -> None:
    before = bytes(arm64.data)
    assert (
        says(arm64.add(".bug_frames.0", bytes(8)).data)[1] == "Wrong size 8 of .bug_frames.0 (must be multiple of 16)"
    )
    altered = Editor(before).add(".altinstructions", bytes(14), align=1)
    assert says(altered.data)[1] == "Wrong size 14 of .altinstructions (must be multiple of 12)"


def test_function_sizes(arm64: Editor) -> None:
    """4 bytes are enough on Arm, also for a NOP, whose size is a multiple of 4."""
    for size, errno in ((3, 22), (4, 0)):
        assert says(arm64.function(old_size=size).data) == (errno, "")


def test_rel_on_arm64(arm64: Editor) -> None:
    section = next(n for n in range(1, arm64.count) if arm64.name(n) == ".rela.text")
    assert says(arm64.edit(section, type=9).data) == (38, "")


@pytest.mark.parametrize(
    ("kind", "addend", "errno", "message"),
    [
        (0, 0, 95, "Unhandled relocation 0"),  # R_AARCH64_NONE
        (256, 0, 95, "Unhandled relocation 256"),
        (273, 0, 95, "Unhandled relocation 273"),  # LD_PREL_LO19
        (311, 0, 95, "Unhandled relocation 311"),  # ADR_GOT_PAGE
        (283, (1 << 27) - (1 << 20), 0, ""),  # CALL26
        (283, 1 << 28, 75, "Overflow in relocation 0 in .rela.text for .text"),
        (282, -(1 << 28), 75, "Overflow in relocation 0 in .rela.text for .text"),  # JUMP26
        (280, 1 << 21, 75, "Overflow in relocation 0 in .rela.text for .text"),  # CONDBR19
        (279, 1 << 19, 0, ""),  # TSTBR14: Xen allows for 19 bits
        (274, 1 << 21, 75, "Overflow in relocation 0 in .rela.text for .text"),  # ADR_PREL_LO21
        (275, 1 << 34, 75, "Overflow in relocation 0 in .rela.text for .text"),  # ADR_PREL_PG_HI21
        (276, 1 << 40, 0, ""),  # ... _NC
        (261, 1 << 33, 75, "Overflow in relocation 0 in .rela.text for .text"),  # PREL32
        (263, 0, 75, "Overflow in relocation 0 in .rela.text for .text"),  # MOVW_UABS_G0: not an address
        (264, 0, 0, ""),  # ... _NC
        (269, 0, 0, ""),  # MOVW_UABS_G3
        (287, 1 << 20, 75, "Overflow in relocation 0 in .rela.text for .text"),  # MOVW_PREL_G0
        (277, 0, 0, ""),  # ADD_ABS_LO12_NC
        (299, 0, 0, ""),  # LDST128_ABS_LO12_NC
    ],
)  # fmt: skip
def test_relocations_of_arm64(arm64: Editor, kind: int, addend: int, errno: int, message: str) -> None:
    section = arm64.section(".symtab")
    code = next(n for n in range(1, arm64.symbols) if arm64.data[arm64.content(section) + 24 * n + 4] & 15 == 3)
    arm64.edit_symbol(code, shndx=arm64.section(".text"), value=0)
    arm64.relocation(".rela.text", 0, type=kind, symbol=code, addend=addend, offset=0)
    assert says(arm64.data) == (errno, message)


def test_offsets_on_arm64(arm64: Editor) -> None:
    """Even a half-word needs 4 bytes."""
    size = arm64.field(".text", "size")
    arm64.relocation(".rela.text", 0, type=262, offset=size - 2)
    assert says(arm64.data) == (22, "Relative relocation offset is past .text section")


@pytest.mark.parametrize(
    ("kind", "errno", "message"),
    [
        (0, 0, ""), (2, 0, ""), (3, 0, ""), (43, 0, ""), (44, 0, ""),
        (1, 95, "Unhandled relocation #1"), (40, 95, "Unhandled relocation #28"), (42, 95, "Unhandled relocation #2a"),
        (38, 95, "Unhandled relocation #26"), (10, 95, "Unhandled relocation #a"),
    ],
)  # fmt: skip
def test_relocations_of_arm32(arm32: Editor32, kind: int, errno: int, message: str) -> None:
    at = arm32.relocations(".rel.text")
    symbol = int.from_bytes(arm32.data[at + 4 : at + 8], "little") >> 8
    assert says(arm32.put(at + 4, "I", symbol << 8 | kind).data) == (errno, message)


def test_no_offset_is_checked_on_arm32(arm32: Editor32) -> None:
    at = arm32.relocations(".rel.text")
    assert check(arm32.put(at, "I", 1 << 28).put(at + 4, "B", 2).data).first is None


def test_symbols_of_relocations_on_arm32(arm32: Editor32) -> None:
    at, count = arm32.relocations(".rel.text"), arm32.view.symbol_count
    assert says(arm32.put(at + 4, "I", count << 8 | 2).data) == (
        22,
        f"Relative symbol wants symbol@{count} which is past end",
    )
    assert says(arm32.put(at + 4, "I", 2).data) == (95, "Encountered STN_UNDEF")


@pytest.mark.parametrize(("back", "errno"), [(31 << 20, 0), (32 << 20, 75)])
def test_the_reach_of_a_call_on_arm32(arm32: Editor32, back: int, errno: int) -> None:
    """The addend stands in the instruction, in words; from the beginning of .text to there and so far back."""
    section, rows = arm32.section(".text"), arm32.relocations(".rel.text")
    text = next(n for n, symbol in enumerate(arm32.view.symbols()) if symbol.type == STT_SECTION)
    symbol = arm32.view.symbol_offset(text)
    arm32.put(symbol + 14, "H", section.number).put(symbol + 4, "I", 0)
    arm32.put(rows, "I", 4).put(rows + 4, "I", text << 8 | 28)
    arm32.put(section.offset + 4, "I", 0xEB000000 | (-back >> 2 & 0xFFFFFF))
    message = "Overflow in relocation 0 in .rel.text for .text" if errno else ""
    assert says(arm32.data) == (errno, message)


def test_no_exception_tables_on_arm32(arm32: Editor32) -> None:
    """The section need not even be loaded."""
    name = b".ARM.attributes\0"
    at = bytes(arm32.data).index(name)
    arm32.data[at : at + len(name)] = b".ex_table".ljust(len(name), b"\0")
    assert says(arm32.data) == (95, "We don't support .ex_table")
