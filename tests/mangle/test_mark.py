"""The mark: it has the options as typed, older versions are read, nothing else counts as a mark."""

from __future__ import annotations

import pytest
from elfbuild import plain
from stacked import ident

from lpmangle import elf
from lpmangle.errors import PlanError
from lpmangle.mangle import mark
from lpmangle.mangle.apply import apply
from lpmangle.mangle.decide import make_plan
from lpmangle.mangle.mark import Below, Mark
from lpmangle.mangle.options import Options
from lpmangle.xen.payload import Payload

WAY = Mark("abc", "buildid:7", "{symbol}_{suffix}", "local")


def found(text: bytes) -> Mark | None:
    """The mark in a string table that has this string between two others."""
    return mark.find_in(b"\0first\0" + text + b"\0last\0")


@pytest.mark.parametrize(
    "one",
    [
        WAY,
        WAY._replace(scope="new", globs=mark.globs_text(["a b", "é"], ["* --against ab:1"])),
        WAY._replace(below=(Below("ab" * 20, 3, "00ff"), Below("cd", 0, "11"))),
        WAY._replace(globs="--keep x", below=(Below("ab", 12, "00"),)),
        WAY._replace(globs=mark.globs_text(["x" * 600, "y" * 600], [])),
    ],
)
def test_what_is_written_is_read(one: Mark) -> None:
    assert found(one.encode()) == one


def test_globs_make_one_text() -> None:
    assert mark.globs_text(["b", "a", "b"], ["c"]) == "--only a --only b --keep c"
    long = [f"{number:040}" for number in range(40)]
    assert mark.globs_text(long, ()) == mark.globs_text(reversed(long), ())
    assert mark.globs_text(long, ()) != mark.globs_text((), long)
    assert mark.globs_text(long, ()).startswith("and 40 globs, sha256 ")


def test_version_1() -> None:
    text = b"lpmangle 1 --suffix text:SUF --template {name}_{suffix} --scope new"
    assert found(text) == Mark("SUF", "text:SUF", "{name}_{suffix}", "new", version=1)
    several = b" --only a --against b:1 --keep x --against abcd:12 --against ef:3"
    one = found(text + several)
    assert one is not None
    assert one.globs == "--only a --against b:1 --keep x"
    assert one.below == (Below("abcd", 12, ""), Below("ef", 3, ""))
    assert one.same_way(Mark("SUF", "name", "{name}_{suffix}", "new", one.globs))


def test_a_newer_version_is_told_as_it_stands() -> None:
    one = found(b"lpmangle 31 whatever that may be")
    assert one is not None
    assert one.words == "whatever that may be"
    assert not one.same_way(WAY)
    broken = found(b"lpmangle 2 without options")
    assert broken is not None
    assert not broken.same_way(WAY)


@pytest.mark.parametrize("text", [b"lpmangle", b"lpmangle two", b"xlpmangle 2 S", b"lpmangle 12345678901 x", b""])
def test_other_strings_are_no_marks(text: bytes) -> None:
    assert found(text) is None
    first = WAY.encode()
    assert mark.find_in(b"\0" + first + b"\0" + text + b"\0") == WAY


def test_the_last_one_counts() -> None:
    both = WAY.encode(), WAY._replace(scope="new").encode()
    assert mark.find_in(b"\0" + b"\0".join(both) + b"\0") == WAY._replace(scope="new")


@pytest.mark.parametrize(
    "typed", ["buildid", "buildid:12", "name", "text:stem", "text:" + ident(1).hex()], ids=lambda typed: typed[:12]
)
def test_a_refusal_says_what_was_typed(typed: str) -> None:
    view = elf.parse(plain().data)
    done = elf.parse(bytes(apply(Payload(view), make_plan(Payload(view), Options(typed), "stem"))))
    with pytest.raises(PlanError) as caught:
        make_plan(Payload(done), Options(typed, scope="new"), "stem")
    words = f"--suffix {typed} --template {{symbol}}_{{suffix}} --scope local"
    assert caught.value.message == f"is already mangled, with {words}"


def test_the_same_suffix_typed_otherwise_is_the_same_way() -> None:
    view = elf.parse(plain().data)
    done = elf.parse(bytes(apply(Payload(view), make_plan(Payload(view), Options("name"), "stem"))))
    assert make_plan(Payload(done), Options("text:stem"), "other").already
    with pytest.raises(PlanError, match="--suffix name --template"):
        make_plan(Payload(done), Options("name"), "other")


def test_one_long_glob() -> None:
    """What is written stays as it was: a mark is compared with those of older versions."""
    one = mark.globs_text(["a" * 1001], ())
    assert one.startswith("and 1 globs, sha256 ")
    assert "local and 1 glob, sha256 " in Mark("S", "text:S", "{symbol}_{suffix}", "local", one).words


def test_a_payload_with_the_old_mark_is_mangled_already() -> None:
    view = elf.parse(plain().data)
    options = Options("text:SUF")
    after = bytes(apply(Payload(view), make_plan(Payload(view), options, "stem")))
    words = "--suffix text:SUF --template {symbol}_{suffix} --scope local"
    start = after.index(b"\0lpmangle 2 ") + 1
    end = after.index(b"\0", start)
    text = f"lpmangle 1 {words}".encode()
    # The rest of the longer mark becomes another string that nothing refers to.
    done = elf.parse(after[:start] + text + b"\0" + b"x" * (end - start - len(text) - 1) + after[end:])
    assert mark.find(done) == Mark("SUF", "text:SUF", "{symbol}_{suffix}", "local", version=1)
    assert make_plan(Payload(done), options, "stem").already
    with pytest.raises(PlanError, match="is already mangled, with --suffix text:SUF"):
        make_plan(Payload(done), Options("text:SUF", scope="new"), "stem")
