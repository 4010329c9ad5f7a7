"""Several payloads, several versions; findings besides the loader's own messages."""

from __future__ import annotations

import pytest
from hypervisor import BUILD_ID, START, SYMBOLS, base, identity, outcome, payload, state, upload
from lab.editor import Editor

from lpmangle.errors import ElfError, NamingError
from lpmangle.loader import NOT_CHECKED, WARNING, Hypervisor, State, Upload, Verdict, check_sequence, check_upload
from lpmangle.loader.profile import CHANGES, Profile
from lpmangle.xen.versions import NEWEST, parse_version


def rules(verdict: Verdict, severity: str) -> list[str]:
    return [finding.rule for finding in verdict.everything if finding.severity == severity]


# Sequences


def test_duplicates_name_the_payload_that_has_them() -> None:
    clash = {"lp_data": "gnttab_map_frame_begin"}
    verdicts = check_sequence([payload("one", names=clash), payload("two", names=clash)], state())
    assert [verdict.status for verdict in verdicts] == ["accepted", "refused"]
    first = verdicts[1].first
    assert first
    assert first.message == "livepatch: two: duplicate new symbol: gnttab_map_frame_begin"
    assert (first.errno, first.errno_name, first.detail) == (17, "EEXIST", "one has it")
    assert "--scope new" in first.remedy  # it is GLOBAL


def test_a_refused_payload_leaves_nothing_behind() -> None:
    clash = {"lp_data": "x"}
    bad = payload("bad", names=clash)
    bad.data = bad.data.replace(BUILD_ID, bytes(20))
    assert [v.status for v in check_sequence([bad, payload("good", names=clash)], state())] == ["refused", "accepted"]


@pytest.mark.parametrize(
    ("first", "second", "taken"), [(125, 126, True), (126, 127, False), (127, 128, False), (127, 126, False)]
)
def test_names_are_cut_at_126(first: int, second: int, taken: bool) -> None:
    one, two = payload("one", names={"lp_data": "n" * first}), payload("two", names={"lp_data": "n" * second})
    verdict = check_sequence([one, two], state())[1]
    assert (verdict.first is None) is taken
    if not taken:
        assert outcome(verdict) == (17, "duplicate new symbol: " + "n" * 126)


def test_undefined_symbols_are_found_in_loaded_payloads() -> None:
    one = payload("one", names={"lp_data": "shared"})
    two = Editor(payload("two", names={"lp_data": "shared"}).data).edit_symbol("shared", shndx=0)
    user = Upload("two", bytes(two.data))
    assert [v.status for v in check_sequence([one, user], state())] == ["accepted", "accepted"]
    assert outcome(check_upload(user, state())) == (2, "Unknown symbol: shared")


def test_a_longer_name_is_not_found_its_beginning_is() -> None:
    one = payload("one", names={"lp_data": "n" * 127})
    for length, taken in ((126, True), (127, False)):
        editor = Editor(payload("two", names={"lp_data": "n" * length}).data).edit_symbol("n" * length, shndx=0)
        assert (check_sequence([one, Upload("two", bytes(editor.data))], state())[1].first is None) is taken


def test_the_same_name_and_the_same_build_id() -> None:
    one = payload("one")
    by_name, by_build_id = check_sequence([one, Upload("one", b"junk"), Upload("two", one.data)], state())[1:]
    assert by_name.first
    assert by_build_id.first
    assert (by_name.first.rule, by_name.first.errno, by_name.first.message) == ("name-in-use", 17, "")
    assert (by_build_id.first.rule, by_build_id.first.errno, by_build_id.first.message) == ("build-id-loaded", 17, "")
    assert by_build_id.first.detail.endswith("is loaded as one")


# Apply and replace


def test_apply_on_top_or_replace() -> None:
    verdicts = check_sequence(
        [payload("one"), payload("two", depends=identity("one")), payload("three"), payload("four", depends=b"?" * 20)],
        state(),
    )
    assert [verdict.action for verdict in verdicts] == ["apply", "apply", "replace", ""]
    assert not verdicts[3].good
    (finding,) = [finding for finding in verdicts[3].then if finding.fatal]
    assert finding.message == "livepatch: four: check against three build-id failed"
    assert "--nodeps" in finding.detail


def test_a_vetoing_hook_forbids_replace() -> None:
    editor = Editor(payload("one").data).add(".livepatch.hooks.postapply", bytes(8), flags=3)
    editor.add_relocation(".livepatch.hooks.postapply", 0, 2)
    verdicts = check_sequence([Upload("one", bytes(editor.data)), payload("two")], state())
    assert [finding.rule for finding in verdicts[1].then] == ["replace-hooks"]


@pytest.mark.parametrize(
    ("flags", "code", "rule"),
    [(1 | 7 << 1, b"\x90", ""), (1 | 7 << 1, b"\xcc", "expectation"), (1 | 13 << 1, b"\x90", "expectation-size"),
     (1 | 1 << 6, b"", "expectation"), (7 << 1, b"\xcc", "")],
)  # fmt: skip
def test_expectations(flags: int, code: bytes, rule: str) -> None:
    editor = Editor(payload("one").data).function(expect=flags)
    at = editor.content(".livepatch.funcs") + 73
    editor.data[at : at + 7 * len(code)] = code * 7
    (verdict,) = check_sequence([Upload("one", bytes(editor.data))], state())
    assert [finding.rule for finding in verdict.then] == ([rule] if rule else [])
    if code == b"\xcc":
        before = "livepatch: xen_extra_version: expectation failed: expected:cccccccccccccc, actual:90909090909090"
        says = "livepatch: one: expectations of xen_extra_version failed (rc=-22), aborting!"
        assert [(f.lines, f.headline) for f in verdict.then] == ([((before, says), says)] if rule else [])


def test_expectations_come_before_what_apply_dies_of() -> None:
    """livepatch_check_expectations, then apply_payload; a preapply hook is called before both."""
    editor = Editor(payload("one").data).function(expect=1 | 7 << 1).edit(".livepatch.funcs", flags=2)
    verdict = check_upload(Upload("one", bytes(editor.data)), state("4.18.0"))
    assert [finding.rule for finding in verdict.then if finding.fatal] == ["expectation", "func-read-only"]
    for hook, first in (("preapply", "section-not-loaded"), ("apply", "expectation"), ("load", "expectation")):
        editor = Editor(payload("one").data).function(expect=1 | 7 << 1)
        editor.add(f".livepatch.hooks.{hook}", bytes(8), flags=0)
        verdict = check_upload(Upload("one", bytes(editor.data)), state("4.20"))
        assert next(finding.rule for finding in verdict.then if finding.fatal) == first


# Versions


def test_xen_depends_comes_first_in_newer_versions() -> None:
    editor = Editor(base()).edit(".text", flags=7).byte(".livepatch.xen_depends", 20, 0)
    for version in ("4.17", "4.18.0", "4.19.0"):
        assert outcome(upload(editor.data, version)) == (95, "")
    for version in ("4.18.4", "4.19.1", "4.20", "4.21"):
        errno, message = outcome(upload(editor.data, version))
        assert errno == 22
        changed = BUILD_ID.hex()[:8] + "00" + BUILD_ID.hex()[10:]
        assert message == f"build-id mismatch:\n\xa0 livepatch: {changed}\n{7 * chr(0xA0)} xen: {BUILD_ID.hex()}"
    missing = Editor(base()).edit(".livepatch.xen_depends", name=0)
    assert outcome(upload(missing.data, "4.20")) == (22, "section .livepatch.xen_depends is missing")
    assert outcome(upload(missing.data, "4.17")) == (22, ".livepatch.xen_depends is missing")


def test_versions() -> None:
    assert parse_version("4.17.7+13-g2445b30a44") == parse_version("4.17.7-pre") == (4, 17, 7)
    assert parse_version("4.17") > parse_version("4.17.7")
    assert all(change.is_in(NEWEST) and getattr(Profile(NEWEST), name) for name, change in CHANGES.items())
    assert not any(change.is_in((4, 14, 0)) for change in CHANGES.values())
    for wrong in ("", "4", "four", "4.17.1.2"):
        with pytest.raises(NamingError):
            parse_version(wrong)


# The hypervisor


def test_a_copy_of_xensyms() -> None:
    lines = b"".join(b"%016x T %s\n" % (address, name) for name, address in SYMBOLS.items())
    xen = Hypervisor.read_from(lines)
    assert xen.symbols == SYMBOLS
    verdict = check_upload(payload("one"), State(xen, (4, 17, 7)))
    assert verdict.status == "accepted"
    assert not verdict.complete
    assert set(rules(verdict, NOT_CHECKED)) == {"no-hypervisor-build-id"}
    short = Upload("one", bytes(Editor(payload("one").data).function(old_size=8).data))
    assert "no-hypervisor-code" in rules(check_upload(short, State(xen, (4, 17, 7))), NOT_CHECKED)
    for wrong in (b"", b"garbage\n", b"\x7fELF garbage"):
        with pytest.raises(ElfError):
            Hypervisor.read_from(wrong)


def test_without_a_hypervisor() -> None:
    """Only what does not need its table is checked."""
    verdict = check_upload(payload("one"), State())
    assert verdict.status == "accepted"
    assert set(rules(verdict, NOT_CHECKED)) == {"no-hypervisor-table", "no-hypervisor-build-id"}
    clash = {"lp_data": "x"}
    verdicts = check_sequence([payload("one", names=clash), payload("two", names=clash)], State())
    assert outcome(verdicts[1]) == (17, "duplicate new symbol: x")
    bad = Upload("two", bytes(Editor(base()).relocation(".text", 0, type=10).data))
    assert outcome(check_upload(bad, State())) == (95, "Unhandled relocation 10")


def test_addresses_are_those_of_the_hypervisor() -> None:
    """The first payload is 9 pages after the hypervisor's end, the next after a page that stays free."""
    verdicts = check_sequence([payload("one"), payload("two")], state())
    bases = [verdict.loaded.base for verdict in verdicts if verdict.loaded]
    assert bases == [START + 0x1000 + 9 * 4096, START + 0x1000 + 13 * 4096]


# Warnings


def test_warnings() -> None:
    verdict = upload(base())
    assert rules(verdict, WARNING) == ["not-mangled", "new-global"]
    assert "lp_data" in next(f.detail for f in verdict.findings if f.rule == "new-global")
    same = Editor(base()).rename("upload.c#calls", "upload.c#helper")
    assert "same-name" in rules(upload(same.data), WARNING)
    for name, common in (
        ("lock", True),
        ("calls.3", True),
        ("f.constprop.0", True),
        ("a.c#lock", False),
        ("own", False),
    ):
        editor = Editor(base()).rename("upload.c#calls", name)
        assert ("common-name" in rules(upload(editor.data), WARNING)) is common
    assert "long-name" in rules(upload(Editor(base()).rename("upload.c#calls", "n" * 127).data), WARNING)
    large = Editor(base()).add(".debug_info", bytes(2 << 20), flags=0)
    verdict = upload(large.data)
    assert outcome(verdict) == (22, "")
    assert "strip -g" in next(finding.remedy for finding in verdict.findings if finding.rule == "debug-size")
