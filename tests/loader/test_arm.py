"""The rules on Arm, on payloads of the corpus, against xen/arch/arm/{arm32,arm64}/livepatch.c and livepatch_elf.c."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from corpus import Item
from lab.editor import Editor

from lpmangle import elf
from lpmangle.elf import text
from lpmangle.loader import CRASH, State, Upload, Verdict, check_upload, take
from lpmangle.xen import machines
from lpmangle.xen.versions import parse_version

ARM64, ARM32 = "aarch64-gcc-ld", "arm-gcc-ld"
NOTHING_KNOWN = "4.17"
STT_SECTION = 3


def check(data: bytes | bytearray, version: str = NOTHING_KNOWN) -> Verdict:
    """By the rules alone: there is no hypervisor's table for Arm here."""
    return check_upload(Upload("two", bytes(data)), State(None, parse_version(version)))


def crash(data: bytes | bytearray, version: str = NOTHING_KNOWN) -> str:
    first = check(data, version).first
    return first.rule if first and first.severity == CRASH else ""


def says(data: bytes | bytearray, version: str = NOTHING_KNOWN) -> tuple[int, str]:
    first = check(data, version).first
    return (first.errno, first.message.removeprefix("livepatch: two: ")) if first else (0, "")


class Editor32:
    """The part of Editor that is needed for 32-bit payloads."""

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
    """Payloads as livepatch-build makes them; the others have no depends, or are of version 1."""
    for name, item in corpus.items():
        spec = item.spec
        if spec.machine != machine or not spec.linker or not spec.add_sections:
            continue
        verdict = check(item.path.read_bytes())
        if spec.version == 1:
            assert " of .livepatch.funcs (must be multiple of " in says(item.path.read_bytes())[1], name
        elif spec.placeholder == 0xFFF1 and machine == "x86_64":
            assert verdict.first  # an absolute address of 0x1000 is out of the reach of a jump; on Arm Xen is near it
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
    arm64.relocation(".text", 0, type=kind, symbol=code, addend=addend, offset=0)
    assert says(arm64.data) == (errno, message)


def test_offsets_on_arm64(arm64: Editor) -> None:
    """Even a half-word needs 4 bytes."""
    size = arm64.field(".text", "size")
    arm64.relocation(".text", 0, type=262, offset=size - 2)
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
    """After the section there may be other memory of the payload; after that there is none."""
    at, size = arm32.relocations(".rel.text"), arm32.section(".text").size
    assert check(arm32.put(at, "I", size + 16).put(at + 4, "B", 2).data).first is None
    assert crash(arm32.put(at, "I", 1 << 28).data) == "reloc-outside"
    assert says(arm32.put(at + 4, "B", 1).data) == (95, "Unhandled relocation #1")  # nothing is touched


def test_alignment_on_arm32(arm32: Editor32) -> None:
    """Reading an unaligned word is a data abort. Seen with notes, relocations and symbols; inferred for the rest."""
    before = bytes(arm32.data)

    def edited(change: Callable[[Editor32], object]) -> bytearray:
        editor = Editor32(before)
        change(editor)
        return editor.data

    rows = arm32.relocations(".rel.livepatch.funcs")
    assert crash(edited(lambda e: e.put(rows, "I", 1))) == "unaligned"
    assert says(edited(lambda e: e.put(rows, "I", 1).put(rows + 4, "B", 0)))[0] == 0  # R_ARM_NONE
    symtab = arm32.view.section_header_offset(arm32.view.symtab.number)
    assert crash(edited(lambda e: e.put(symtab + 36, "I", 18).put(symtab + 20, "I", 18 * 20))) == "unaligned"
    assert crash(edited(lambda e: e.put(symtab + 16, "I", arm32.view.symtab.offset - 2))) == "unaligned"
    assert crash(edited(lambda e: e.put(32, "I", arm32.view.e_shoff - 2))) == "unaligned"
    # An odd number of bytes before a note that has no alignment of its own.
    depends = arm32.view.section_header_offset(arm32.section(".livepatch.depends").number)
    strings = next(s for s in arm32.view.sections[1:] if s.name.startswith((".rodata", ".livepatch.strings")))
    odd = arm32.view.section_header_offset(strings.number)

    def odd_bytes(editor: Editor32) -> None:
        editor.put(odd + 20, "I", strings.size - strings.size % 2 - 1)
        for number in range(1, len(editor.view.sections)):
            editor.put(editor.view.section_header_offset(number) + 32, "I", 1)

    assert depends
    found = check(edited(odd_bytes))
    assert "unaligned" in [finding.rule for finding in found.findings]


def test_alignment_is_of_no_account_on_arm64(arm64: Editor) -> None:
    assert says(arm64.add(".odd", b"1", align=1).relocation(".rela.text", 0, offset=1, type=261).data)[1] == ""


def test_calls_over_an_odd_number_of_words(arm32: Editor32) -> None:
    """perform_rel masks the distance, in words, with 0x00FFFFFE: seen on a real Xen 4.17."""
    section, rows = arm32.section(".text"), arm32.relocations(".rel.text")
    text = next(n for n, symbol in enumerate(arm32.view.symbols()) if symbol.type == STT_SECTION)
    symbol = arm32.view.symbol_offset(text)
    arm32.put(symbol + 14, "H", section.number).put(symbol + 4, "I", 0)
    for place, addend, odd in ((0, 0, False), (4, 0, True), (0, -4, True), (4, -4, False), (8, -8, False)):
        arm32.put(rows, "I", place).put(rows + 4, "I", text << 8 | 28)
        arm32.put(section.offset + place, "I", 0xEB000000 | (addend >> 2 & 0xFFFFFF))
        verdict = check(arm32.data)
        assert verdict.first is None
        warned = [f for f in verdict.findings if f.rule == "reloc-call-odd" and f"at {place:#x}:" in f.detail]
        assert bool(warned) is odd, (place, addend)
        assert verdict.loaded
        (word,) = struct.unpack_from("<I", verdict.loaded.memory, place)  # .text is what is placed first
        assert word == 0xEB000000 | (addend - place) >> 2 & 0xFFFFFE


def test_addends_that_are_dropped(arm32: Editor32) -> None:
    section, rows = arm32.section(".text"), arm32.relocations(".rel.text")
    for word, dropped in ((0xE3000000, False), (0xE3000004, True), (0xE30F0FFF, True)):
        arm32.put(rows, "I", 0).put(rows + 4, "B", 43).put(section.offset, "I", word)
        rules = [finding.rule for finding in check(arm32.data).findings]
        assert ("reloc-addend-dropped" in rules) is dropped


def test_symbols_of_relocations_on_arm32(arm32: Editor32) -> None:
    at, count = arm32.relocations(".rel.text"), arm32.view.symbol_count
    assert says(arm32.put(at + 4, "I", count << 8 | 2).data) == (
        22,
        f"Relative symbol wants symbol@{count} which is past end",
    )
    assert says(arm32.put(at + 4, "I", 2).data) == (95, "Encountered STN_UNDEF")


@pytest.mark.parametrize(("back", "errno"), [(31 << 20, 0), (32 << 20, 75)])
def test_the_reach_of_a_call_on_arm32(arm32: Editor32, back: int, errno: int) -> None:
    """The addend is in the instruction, in words: from the start of .text to there, and back."""
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


# Where Xen on Arm differs from x86; everything was seen on 4.17, except where it says "read".


def good_alternative(e: Editor, feature: int, length: int = 4, new_length: int = 4) -> Editor:
    """4 bytes of the payload's own code."""
    e.add(".altinstructions", struct.pack("<iiHBB", 0, 0, feature, length, new_length), align=4)
    number = e.count - 1
    e.add(".altinstr_replacement", b"\x1f\x20\x03\xd5" * 2, flags=6, align=4)
    e.edit_symbol(3, shndx=e.count - 1)  # that of .text.entry, made the new section's
    e.add(".rela.altinstructions", struct.pack("<QIIqQIIq", 0, 261, 2, 0, 4, 261, 3, 0), flags=0, kind=4)
    return e.edit(e.count - 1, link=e.section(".symtab"), info=number, entsize=24)


def test_good_alternatives_are_taken(arm64: Editor) -> None:
    """Their offsets are PREL32 relocations."""
    assert says(good_alternative(arm64, 3).data) == (0, "")


def test_alternatives_elsewhere_are_refused(arm64: Editor) -> None:
    editor = good_alternative(arm64, 3).relocation(".rela.altinstructions", 0, addend=1 << 20)
    message = says(editor.data)[1]
    assert message.startswith(
        "livepatch: two Alternative orig 0000000000b02000+0x4 outside payload text 0000000000a02000+0x"
    )


@pytest.mark.parametrize(
    ("version", "feature", "rule"),
    [
        ("4.14.6", 14, ""), ("4.14.6", 15, "alternatives-callback"),
        ("4.17", 17, ""), ("4.17", 18, "alternatives-callback"), ("4.17", 0x8000, "alternatives-callback"),
        ("4.22", 17, ""), ("4.22", 18, "alternatives-callback"),
    ],
)  # fmt: skip
def test_features_of_alternatives(arm64: Editor, version: str, feature: int, rule: str) -> None:
    """ARM_NCAPS and above: Xen calls the replacement, which cannot be executed yet."""
    assert crash(good_alternative(arm64, feature).data, version) == rule


def test_replacements_have_the_same_length(arm64: Editor) -> None:
    """BUG_ON in __apply_alternatives, if the processor has the feature; it has that of live patching."""
    before = bytes(arm64.data)
    assert crash(good_alternative(Editor(before), 4, 4, 8).data) == "alternatives-bug"
    verdict = check(good_alternative(Editor(before), 3, 4, 8).data)
    assert verdict.first is None
    assert not verdict.complete
    assert "alternatives-processor" in [finding.rule for finding in verdict.findings]


def test_a_section_of_a_negative_size(arm64: Editor, arm32: Editor32) -> None:
    """Arm's memcpy treats half of all sizes as negative; sizes wrap around, and nothing is printed."""
    assert check(arm64.edit(".text", size=(1 << 64) - 1).edit(".rela.text", size=0).data).first is None
    sizes = [arm32.view.section_header_offset(arm32.section(name).number) + 20 for name in (".text", ".rel.text")]
    assert check(arm32.put(sizes[0], "I", 0xFFFFFFFF).put(sizes[1], "I", 0).data).first is None


@pytest.mark.parametrize(("version", "kinds"), [("4.14.6", 3), ("4.16", 3), ("4.17.0", 4), ("4.22", 4)])
def test_kinds_of_bug_frames(arm64: Editor, version: str, kinds: int) -> None:
    before = bytes(arm64.data)
    for kind in range(5):
        wrong = says(Editor(before).add(f".bug_frames.{kind}", bytes(8)).data, version)
        assert (wrong == (22, f"Wrong size 8 of .bug_frames.{kind} (must be multiple of 16)")) is (kind < kinds)


@pytest.mark.parametrize(
    ("machine", "version", "base"),
    [
        (ARM64, "4.14.0", 0xA02000), (ARM64, "4.17", 0xA02000), (ARM64, "4.18.0", 0x20001002000),
        (ARM64, "4.22", 0x20001002000), (ARM32, "4.17", 0xA02000), (ARM32, "4.18.0", 0x1002000),
    ],
)  # fmt: skip
def test_where_payloads_lie(corpus: dict[str, Item], machine: str, version: str, base: int) -> None:
    """After a page for the bitmap and a free page."""
    verdict = check(corpus[machine].path.read_bytes(), version)
    assert verdict.loaded
    assert verdict.loaded.base == base


def test_the_area_is_not_the_limit(arm64: Editor) -> None:
    """2 MiB of zeros are accepted, although the area for all payloads has 2 MiB."""
    assert check(arm64.edit(".bss", size=2 << 20).data).first is None
    align = 1 << 27
    assert says(arm64.edit(".bss", addralign=align).edit(".data", size=8).data)[1] == (
        "Could not allocate memory for payload"
    )


def test_alternative_calls(arm64: Editor) -> None:
    """Read in 4.21."""
    data = arm64.add(".alt_call_sites", bytes(4), align=4).data
    assert says(data, "4.20") == (0, "")
    assert says(data, "4.21.0") == (95, "Alternative calls not supported")


def replaces(e: Editor, name: bytes) -> Editor:
    e.add(".livepatch.name", name + b"\0")
    e.edit_symbol(6, shndx=e.count - 1)  # that of .livepatch.strings
    return e.relocation(".rela.livepatch.funcs", 0, symbol=6, addend=0)


def test_a_function_of_another_payload(arm64: Editor) -> None:
    """Xen writes at the function's offset from its own _start: 8 of 9 such stacks were data aborts."""
    one = bytes(arm64.data)
    state = State(None, parse_version("4.17"))
    state.machine = machines.ARM64
    lower = take(Upload("one", one), state)
    state.loaded, state.applied = [lower], [lower]
    upper = replaces(Editor(one).build_id(b"\2" * 20), b"lp_helper")
    for local in {text(name) for name in lower.symbols}:
        upper.rename(local, local + "_two")
    upper.build_id(lower.build_id, ".livepatch.depends")
    verdict = check_upload(Upload("two", bytes(upper.data)), state)
    assert verdict.first is None
    (finding,) = [finding for finding in verdict.then if finding.fatal]
    assert (finding.rule, finding.severity, finding.detail) == ("func-other-payload", CRASH, "lp_helper of one")
    assert not verdict.good


def test_empty_modinfo_on_arm32(corpus: dict[str, Item]) -> None:
    """Seen: Xen reads the byte before it, here the last of a string and of a build-id; on 64 bits it dies."""
    data = corpus[ARM32].path.read_bytes()
    for before, answer in ((b"a\0", (0, "")), (b"ab", (22, "Incorrect metadata format detected"))):
        editor = Editor(data).add(".rodata.before", before, align=1).add(".modinfo", b"", align=1)
        assert says(editor.data) == answer
