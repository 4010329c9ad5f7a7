"""The loader's rules one by one: what was measured on a real Xen 4.17 is expected here without one.

tests/lab/test_check_agrees.py asks a real Xen about all of them, and about many at once.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypervisor import base, outcome, upload
from lab.defects import DEFECTS, SPARE, good_alternative
from lab.editor import Editor

from lpmangle.loader import CRASH, REFUSED, WARNING
from lpmangle.loader.findings import MOST_PER_RULE
from lpmangle.loader.rules import Rule

OK = (0, "")
FUNCS = ".livepatch.funcs"

# defect -> errno and message; where a defect has several forms, all end like this
MEASURED = {
    "nothing": OK,
    "empty file": (22, ""),
    "2 MiB": OK,
    "more than 2 MiB": (22, ""),
    "cut in header": (22, "Section header is bigger than payload"),
    "magic": (22, "Not an ELF payload"),
    "OS": (95, "Invalid ELF payload"),
    "FreeBSD": OK,
    "type": (95, "Invalid ELF payload"),
    "program headers": (95, "Invalid ELF payload"),
    "byte order": (95, "Unsupported ELF Machine type"),
    "no section names": (22, "Section name idx is undefined"),
    "no sections": (22, "Section name idx (14) is past end of sections (0)"),
    "section past end": (22, "Section [SPARE] data is past end of payload"),
    "section at end": OK,
    "section wraps": OK,
    "zeros past end": OK,
    "2 MiB of zeros": OK,
    "more zeros": (22, ""),
    "more zeros, not loaded": OK,
    "two symbol tables": (95, "Unsupported multiple symbol tables"),
    "no symbol table": (22, "No symbol table found"),
    "no symbols": (22, "Symbol table header is corrupted"),
    "symbol size": (22, "Symbol table header is corrupted"),
    "string table type": (22, "String table section is corrupted"),
    "string table first": (22, "String table section is corrupted"),
    "string table last": (22, "String table section is corrupted"),
    "section names last": (22, "Section string table is corrupted"),
    "symbol 0": OK,
    "writable code": (95, ""),
    "writable code, not loaded": OK,
    "huge alignment": (12, "Could not allocate memory for payload"),
    "overlay": OK,
    "undefined WEAK": (2, "Unknown symbol: lp_data"),
    "undefined, no name": (2, "Unknown symbol:"),
    "undefined, known": OK,
    "undefined, bare local": (2, "Unknown symbol: build_id_p"),
    "relocation for nothing": OK,
    "relocation not loaded": OK,
    "relocation size": (22, "Section relative header is corrupted"),
    "no relocations": OK,
    "REL": (95, "SHT_REL relocation unsupported"),
    "REL, too small": (22, "Section relative header is corrupted"),
    "relocation to 0": (95, "Encountered STN_UNDEF"),
    "relocation NONE": OK,
    "relocation offset": (22, "Relative relocation offset is past .text section"),
    "relocation last": OK,
    "relocation offset, pointer": (22, "Relative relocation offset is past .text section"),
    "relocation ignored": (22, "Relocation against ignored symbol lp_data cannot be resolved"),
    "relocation absolute": (75, "Overflow in relocation 2 in .rela.text for .text"),
    "depends: missing": (22, ".livepatch.depends is missing"),
    "depends: empty": (22, ".livepatch.depends is empty"),
    "depends: short": (22, ""),
    "depends: other": OK,
    "xen_depends: short build-id": (22, "check against hypervisor build-id failed"),
    "xen_depends: long name": (22, "check against hypervisor build-id failed"),
    "build-id: cut": (22, ""),
    "build-id: type": (22, ""),
    "build-id: name size": (22, ""),
    "build-id: long name": OK,
    "build-id: wraps": (22, ""),
    "build-id: no build-id": (22, ""),
    "build-id: name": (22, ""),
    "build-id: short build-id": OK,
    "nothing to patch": (22, "Nothing to patch. Aborting..."),
    "no functions": (22, ".livepatch.funcs is empty"),
    "two hooks": (22, ""),
    "two load hooks": OK,
    "good hook": OK,
    "function size 0": (22, "Address or size fields are zero"),
    "function too short": (22, ""),
    "function just long enough": OK,
    "function too far": (75, ""),
    "delete 31": OK,
    "delete 32": (95, ""),
    "delete more than there is": (22, ""),
    "delete nothing": OK,
    "bug frames of no kind": OK,
    "no bug frames": OK,
    "alternatives size": (22, "Wrong size 13 of .altinstructions (must be multiple of 14)"),
    "no alternatives": OK,
    "no replacement": (22, ".altinstructions provided, but no .altinstr_replacement"),
    "alternatives, no code": (22, "Alternatives provided, but no .text"),
    "good alternative": OK,
    "modinfo": OK,
    "modinfo, no end": (22, "Incorrect metadata format detected"),
    "nearly one": OK,
    "long name": OK,
    "same name twice": OK,
    "overriding, known name": OK,
    "not overriding, its name": (17, "duplicate new symbol: xen_extra_version"),
    "at the same address": OK,
    ".L in a merged section": OK,
    "in no section": (22, "Relocation against ignored symbol"),
}


@pytest.mark.parametrize("defect", MEASURED)
@pytest.mark.parametrize("seed", range(3))
def test_measured(defect: str, seed: int) -> None:
    editor = Editor(base())
    spare = editor.section(SPARE)
    DEFECTS[defect](editor, Random(seed))
    found = outcome(upload(editor.data))
    if defect == "in no section":  # a section symbol stands for it in the relocations
        assert found == OK
    else:
        errno, words = MEASURED[defect]
        assert found == (errno, words.replace("SPARE", str(spare)))


# Each of these crashed the hypervisor when it was tried alone.
CRASHES: dict[str, Callable[[Editor], Editor]] = {
    "symtab-link-zero": lambda e: e.edit(".symtab", link=0),
    "reloc-target-zero": lambda e: e.edit(".rela.text", info=0),
    "section-not-loaded": lambda e: e.edit(".livepatch.depends", flags=0),
    "section-not-loaded ": lambda e: e.edit(".note.gnu.build-id", flags=0),
    "section-not-loaded  ": lambda e: e.edit(FUNCS, flags=0),
    "modinfo-empty": lambda e: e.add(".modinfo", b""),
    "func-name-pointer": lambda e: e.relocation(FUNCS, 0, type=0),
    "func-old-pointer": lambda e: e.function(old_addr=0x10),
    "section-overrun ": lambda e: e.edit(".text", size=(1 << 64) - 1),
    # read in the hypervisor's code, not tried
    "section-wraps": lambda e: e.edit(".symtab", entsize=(1 << 63) - 4, size=(1 << 64) - 8),
    "section-overrun": lambda e: e.add(".big", bytes(0x2000)).add(".over", b"1", align=0),
    "alternatives-bug": lambda e: good_alternative(e, Random(1)).word(".altinstructions", 8, 0x04020000),
}


@pytest.mark.parametrize("rule", CRASHES)
def test_crashes(rule: str) -> None:
    editor = Editor(base())
    CRASHES[rule](editor)
    verdict = upload(editor.data)
    assert verdict.first
    assert (verdict.first.rule, verdict.first.severity) == (rule.strip(), CRASH)
    assert verdict.status == "would crash the hypervisor"
    assert not verdict.good


def test_more_symbols_than_memory() -> None:
    """Seen on 4.20 and on arm64: xzalloc_array gives none."""
    editor = Editor(base()).edit(".symtab", size=(1 << 64) // 24 * 24)
    assert outcome(upload(editor.data)) == (12, "Could not allocate memory for symbols")


# Sections that are not loaded: what Xen says before it reads them in the file, and since (4.20 was asked).
NOT_LOADED: dict[str, tuple[Callable[[Editor], Editor], str, str, str]] = {
    "hook": (lambda e: e.add(".livepatch.hooks.apply", bytes(8), flags=0), "", "", "section-not-loaded"),
    "hooks": (
        lambda e: e.add(".livepatch.hooks.load", bytes(8), flags=0),
        "",
        "section-not-loaded",
        "section-not-loaded",
    ),
    "late hook": (lambda e: e.add(".livepatch.hooks.revert", bytes(8), flags=0), "", "", ""),
    "exceptions": (lambda e: e.add(".ex_table", bytes(8), flags=0), "section-not-loaded", "", ""),
    "modinfo": (lambda e: e.add(".modinfo", b"a=b\0", flags=0), "section-not-loaded", "", ""),
}


@pytest.mark.parametrize("what", NOT_LOADED)
@pytest.mark.parametrize("version", ["4.17", "4.20"])
def test_sections_that_are_not_loaded(what: str, version: str) -> None:
    change, old_upload, old_apply, new_apply = NOT_LOADED[what]
    verdict = upload(change(Editor(base())).data, version)
    crashes = [next((f.rule for f in there if f.severity == CRASH), "") for there in (verdict.findings, verdict.then)]
    assert crashes == ([old_upload, old_apply] if version == "4.17" else ["", new_apply])
    assert ("section-in-file" in [f.rule for f in verdict.findings]) is (version == "4.20" and bool(old_upload))


def test_alternatives_that_are_not_loaded() -> None:
    """The address of the file in Xen is not known."""
    editor = good_alternative(Editor(base()), Random(1)).edit(".altinstructions", flags=0)
    first = upload(editor.data, "4.20").first
    assert first
    assert first.message.startswith("livepatch: two Alternative orig ????????????????+0x4 outside payload text ffff")
    first = upload(editor.data, "4.17.5").first
    assert first
    assert first.severity == CRASH


def test_a_refusal_before_a_crash() -> None:
    """Xen does not reach what would crash it."""
    editor = Editor(base()).edit(".text", flags=7).edit(".rela.text", info=0)
    verdict = upload(editor.data)
    assert verdict.status == "refused"
    assert [finding.severity for finding in verdict.findings if finding.fatal][:2] == [REFUSED, CRASH]


def test_all_are_found_the_first_is_xens() -> None:
    editor = Editor(base()).edit(".text", flags=7).edit_symbol("lp_data", shndx=0).edit(".livepatch.depends", size=0)
    editor.function(version=1).byte(".livepatch.xen_depends", 20, 0).rename("upload.c#other", "printk")
    verdict = upload(editor.data)
    rules = [finding.rule for finding in verdict.findings if finding.fatal]
    assert rules == [
        "section-flags", "unknown-symbol", "section-empty", "func-version", "xen-depends", "duplicate-symbol",
    ]  # fmt: skip
    assert verdict.first is verdict.findings[0]


def test_what_is_wrong_with_the_upload_hides_nothing() -> None:
    editor = Editor(base()).edit(".text", flags=7).add("large", bytes(2 << 20), flags=0)
    verdict = upload(editor.data, name="n" * 128)
    assert [finding.rule for finding in verdict.findings if finding.fatal] == [
        "name-length", "too-large", "section-flags",
    ]  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), [(0x40000014, "SHT_CREL"), (19, "SHT_RELR")])
def test_relocations_that_xen_ignores(kind: int, name: str) -> None:
    """They cause no refusal; their consequence is reported with the right remedy."""
    code = upload(Editor(base()).edit(".rela.text", type=kind).data)
    assert code.first is None
    (finding,) = [finding for finding in code.findings if finding.rule == "reloc-compact"]
    assert (finding.severity, finding.detail) == (WARNING, f"{name}: .rela.text")
    first = upload(Editor(base()).edit(".rela" + FUNCS, type=kind).data).first
    assert first
    assert (first.rule, first.remedy) == ("func-name-pointer", finding.remedy)
    assert "damaged" not in first.remedy


def test_section_0_is_never_looked_at() -> None:
    editor = Editor(base()).edit(0, type=2, offset=1, size=1 << 60, addralign=3, flags=7)
    assert upload(editor.data).status == "accepted"


def test_strides_may_be_larger() -> None:
    """Xen goes from header to header, and from symbol to symbol, by the size that the file says."""
    editor = Editor(base())
    starts = [editor.section_header(number) for number in range(editor.count)]
    table = [editor.data[start : start + 64] + bytes(8) for start in starts]
    editor.header(e_shoff=len(editor.data), e_shentsize=72)
    editor.data += b"".join(table)
    assert upload(editor.data).status == "accepted"


def test_a_thousand_bad_relocations_are_said_once_each_kind() -> None:
    editor = Editor(base())
    rows = b"".join(n.to_bytes(8, "little") + b"\x0a\0\0\0\x0f\0\0\0" + bytes(8) for n in range(1000))
    editor.data += rows
    editor.edit(".rela.text", offset=len(editor.data) - len(rows), size=len(rows))
    assert 1 <= len(upload(editor.data).findings) < MOST_PER_RULE


def test_the_table() -> None:
    """Every rule says what it means and what to do."""
    for rule in Rule:
        assert rule.name == rule.upper().replace("-", "_")
        assert rule.errno >= 0
        assert rule.meaning
        assert rule.remedy
