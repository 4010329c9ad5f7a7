"""Every difference between versions, on both sides of each first release."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

import pytest
from hypervisor import base, before, state, upload
from lab.defects import DEFECTS, good_alternative
from lab.editor import Editor

from lpmangle.loader import CRASH, NOT_CHECKED, Upload, check_upload
from lpmangle.loader.profile import CHANGES, Number, Profile
from lpmangle.xen.versions import NEWEST, nearest, parse_version, version_text

FUNCS = ".livepatch.funcs"
SPARE = ".note.GNU-stack"
TAKEN = (0, "")
DEAD = (0, "would crash")


# Each makes a payload; it is compiled when a test asks for it, not before.
Make = Callable[[], Editor]


def defect(name: str) -> Make:
    """One of tests/lab/defects.py."""

    def make() -> Editor:
        editor = Editor(base())
        DEFECTS[name](editor, Random(1))
        return editor

    return make


def in_empty_section() -> Editor:
    editor = Editor(base()).add(".empty", b"", flags=3)
    return editor.edit_symbol("lp_data", shndx=editor.count - 1)


def replaces(name: bytes, size: int) -> Make:
    def make() -> Editor:
        editor = Editor(base()).add(".livepatch.strings", name + b"\0")
        editor.edit_symbol(7, shndx=editor.count - 1).relocation(".rela" + FUNCS, 0, symbol=7, addend=0)
        return editor.function(old_size=size)

    return make


def modinfo_not_loaded() -> Editor:
    return Editor(base()).add(".modinfo", b"a=b\0", flags=0)


def made_for_another() -> Editor:
    return Editor(base()).edit(".text", flags=7).byte(".livepatch.xen_depends", 20, 0)


def alternative(feature: int, length: int = 4) -> Make:
    """4 bytes for `length` of the payload's own code."""

    def make() -> Editor:
        editor = good_alternative(Editor(base()), Random(1))
        return editor.word(".altinstructions", 8, feature | length << 16 | 4 << 24)

    return make


def alternative_call(size: int = 4, at: int = 0, code: bytes = b"\xff\x15") -> Make:
    """One call of the payload's own code, by way of a pointer where lp_data is."""

    def make() -> Editor:
        editor = Editor(base()).add(".alt_call_sites", bytes(size))
        if size >= 4:
            editor.add_relocation(".alt_call_sites", 0, 2, kind=2, addend=at)
        editor.relocation(".rela.text", 0, offset=2, type=2, symbol=editor.symbol("lp_data"), addend=-4)
        editor.edit(".rela.text", size=24)
        start = editor.content(".text")
        editor.data[start : start + len(code)] = code
        return editor

    return make


def answer(make: Make, version: str) -> tuple[int, str]:
    """errno and the line that names the payload."""
    verdict = upload(make().data, version)
    if verdict.first and verdict.first.severity == CRASH:
        return DEAD
    if verdict.first:
        return verdict.first.errno, verdict.first.headline.removeprefix("livepatch: two").removeprefix(":").strip()
    return TAKEN


# The flag, the first releases with the change, and Xen's answer to the same payload without and with it.
OVERFLOW = (75, "Overflow in relocation 2 in .rela.text for .text")
CHANGED = [
    ("empty_sections_placed", "4.14.5 4.15.3 4.16.1 4.17.0", in_empty_section, OVERFLOW, TAKEN),
    ("ignored_symbols_refused", "4.14.5 4.15.3 4.16.1 4.17.0", defect("relocation ignored"), OVERFLOW,
     (22, "Relocation against ignored symbol lp_data cannot be resolved")),
    ("old_address_first", "4.14.5 4.15.3 4.16.1 4.17.0", replaces(b"unknown", 4), (22, ""),
     (2, "Could not resolve old address of unknown")),
    ("endbr_kept", "4.14.5 4.15.3 4.16.1 4.17.0", replaces(b"xen_major_version", 8), TAKEN, (22, "")),
    ("alternatives_in_range", "4.17.4 4.18.0", defect("no replacement"), TAKEN,
     (22, ".altinstructions provided, but no .altinstr_replacement")),
    ("xen_depends_first", "4.18.4 4.19.1 4.20.0", made_for_another, (95, ""), (22, "build-id mismatch:")),
    ("unloaded_read_in_file", "4.18.4 4.19.1 4.20.0", modinfo_not_loaded, DEAD, TAKEN),
    ("note_errors_kept", "4.18.4 4.19.1 4.20.0", defect("build-id: type"), (22, ""), (61, "")),
    ("alternatives_without_bug", "4.18.4 4.19.1 4.20.0", alternative(0, 3), DEAD,
     (28, "applying alternatives failed: -28")),
    ("alternative_calls", "4.21.0", alternative_call(5), TAKEN,
     (22, "Wrong size 5 of .alt_call_sites (must be multiple of 4)")),
    ("alternatives_not", "4.17.6 4.18.6 4.19.3 4.20.1 4.21.0", alternative(0x8000), None, TAKEN),
]  # fmt: skip


@pytest.mark.parametrize(("flag", "first", "make", "without", "having"), CHANGED, ids=[row[0] for row in CHANGED])
def test_first_releases(
    flag: str, first: str, make: Make, without: tuple[int, str] | None, having: tuple[int, str]
) -> None:
    releases = [parse_version(word) for word in first.split()]
    assert CHANGES[flag].first == releases
    for release in releases:
        assert answer(make, version_text(release)) == having, release
        if release[2]:  # else the version before is another branch's newest
            found = answer(make, version_text(before(release)))
            assert found == without or (without is None and found != having), release
    oldest, newest = answer(make, "4.14.0"), answer(make, version_text(NEWEST))
    assert oldest == without or (without is None and oldest != having)
    assert newest == having


def test_read_only_functions() -> None:
    """apply writes there before 4.17.3, 4.18.1 and 4.19; CR0.WP stays set since 4.16.4, 4.17.1 and 4.18."""
    dies = {"4.16.4", "4.16.7", "4.17.1", "4.17.2", "4.18.0"}
    lives = {"4.14.0", "4.15.5", "4.16.0", "4.16.3", "4.17.0", "4.17.3", "4.18.1", "4.19.0", "4.20.0", "4.22.0"}
    for version in dies | lives:
        for flags in (2, 3):
            verdict = upload(Editor(base()).edit(FUNCS, flags=flags).data, version)
            assert verdict.first is None
            dead = [finding.severity for finding in verdict.then if finding.rule == "func-read-only"]
            assert dead == ([CRASH] if flags == 2 and version in dies else []), (version, flags)
            assert verdict.good is not bool(dead)


# Seen on 4.21 and 4.22; the last two were read in apply_alt_calls.
@pytest.mark.parametrize(
    ("make", "errno", "lines"),
    [
        (alternative_call(), 0, []),
        (alternative_call(0), 0, []),
        (alternative_call(at=-1), 22,
         ["livepatch: two: Alternative call ffff82d040209fff+0x6 outside payload text ffff82d04020a000+0xSS"]),
        (alternative_call(at=0x2000), 22,
         ["livepatch: two: Alternative call ffff82d04020c000+0x6 outside payload text ffff82d04020a000+0xSS"]),
        (alternative_call(code=b"\x90\x90"), 22,
         ["Altcall for ffff82d04020a000 [90 90 XX XX XX XX] not CALL *RIPREL",
          "livepatch: two: Applying alternative calls failed: -22"]),
    ],
)  # fmt: skip
def test_alternative_calls(make: Make, errno: int, lines: list[str]) -> None:
    first = upload(make().data, "4.21.0").first
    assert (first.errno if first else 0) == errno
    message = first.message if first else ""
    # The displacement and the size of the code are the compiler's.
    message = re.sub(r"90 90( [0-9a-f]{2}){4}", "90 90 XX XX XX XX", re.sub(r"\+0x[0-9a-f]{2}$", "+0xSS", message))
    assert message.splitlines() == lines


def test_the_last_code_of_an_alternative_call() -> None:
    size = Editor(base()).field(".text", "size")
    for at, rule in ((size - 6, "alternative-calls-code"), (size - 5, "alternative-calls-range")):
        first = upload(alternative_call(at=at)().data, "4.21.0").first
        assert first
        assert first.rule == rule


def test_an_alternative_call_by_a_pointer_that_is_nowhere() -> None:
    editor = alternative_call()().relocation(".rela.text", 0, addend=1 << 30)
    first = upload(editor.data, "4.21.0").first
    assert first
    assert (first.rule, first.severity) == ("alternative-calls-pointer", CRASH)


def test_a_hypervisor_without_a_build_id() -> None:
    for version, message in (("4.17", ""), ("4.20", "livepatch: two: unable to get running Xen build-id: -61")):
        there = state(version)
        assert there.xen
        there.xen.build_id = None
        there.xen._contents = []  # its image is known
        first = check_upload(Upload("two", base()), there).first
        assert first
        assert (first.errno_name, first.message) == ("ENODATA", message)


# NCAPINTS, from the words of public/arch-x86/cpufeatureset.h and Xen's own two; 4.14.6 and 4.17.7 measured as well.
WORDS = {
    "4.14.0": 13, "4.14.4": 13, "4.14.5": 16, "4.14.6": 20, "4.15.0": 13, "4.15.2": 13, "4.15.3": 16, "4.15.4": 16,
    "4.15.5": 20, "4.16.0": 14, "4.16.1": 16, "4.16.3": 16, "4.16.4": 18, "4.16.5": 20, "4.17.0": 16, "4.17.1": 18,
    "4.17.2": 20, "4.17.5": 20, "4.17.6": 21, "4.18.0": 20, "4.18.5": 20, "4.18.6": 21, "4.19.0": 20, "4.19.2": 20,
    "4.19.3": 21, "4.20.0": 20, "4.20.1": 21, "4.21.0": 21, "4.21.1": 22, "4.22.0": 22, "4.22": 22,
}  # fmt: skip


@pytest.mark.parametrize(("version", "words"), WORDS.items())
def test_features_of_alternatives(version: str, words: int) -> None:
    assert answer(alternative(32 * words - 1), version) == TAKEN
    too_large = answer(alternative(32 * words), version)
    if Profile(parse_version(version)).alternatives_without_bug:
        assert too_large == (34, "applying alternatives failed: -34")
    else:
        assert too_large == DEAD


def test_every_flag_has_a_test() -> None:
    assert {row[0] for row in CHANGED} | NOT_HERE == set(CHANGES)
    assert [name for name, value in vars(Profile).items() if isinstance(value, Number)] == [
        "arm64_payloads", "arm32_payloads", "arm_features", "feature_words",
    ]  # fmt: skip


# write_protected and functions_read_only: below; arm_bug_frames_4: test_arm.py.
NOT_HERE = {"write_protected", "functions_read_only", "arm_bug_frames_4"}


@pytest.mark.parametrize(
    ("version", "judged"),
    [("4.13.5", "4.14.0"), ("4.14.0", ""), ("4.17", ""), ("4.22.9", ""), ("4.22", ""),
     ("4.23.0", "4.22"), ("5.1", "4.22")],
)  # fmt: skip
def test_versions_that_are_not_known(version: str, judged: str) -> None:
    """The rules of the nearest known one apply, and it is reported as unknown."""
    verdict = upload(base(), version)
    unknown = [finding for finding in verdict.findings if finding.rule == "unknown-version"]
    if not judged:
        assert not unknown
        assert verdict.complete
        return
    (finding,) = unknown
    assert finding.severity == NOT_CHECKED
    assert finding.detail == f"Xen {version}; judged as Xen {judged}"
    assert version_text(nearest(parse_version(version))) == judged
    assert verdict.first is None
    assert not verdict.complete
