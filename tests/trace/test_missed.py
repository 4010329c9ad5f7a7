"""What retrace reports about mangled names that it could not put back."""

from __future__ import annotations

import hashlib
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest
from logs import COMMAND, FPU, ID, retracer, run, through
from manifests import manifest, plain, write

from lpmangle.trace import missed
from lpmangle.trace.missed import Missed, Reason
from lpmangle.trace.retrace import Retracer, copy

NAME = f"{FPU}_{ID}"


@pytest.fixture
def made(tmp_path: Path) -> Retracer:
    return retracer(tmp_path, plain("p", FPU))


def places(made: Retracer, kind: Reason) -> list[tuple[str, bytes]]:
    assert made.missed.times[kind] == len(made.missed.places[kind])
    assert not any(times for other, times in made.missed.times.items() if other != kind)
    return [(place.where, place.name) for place in made.missed.places[kind]]


@pytest.mark.parametrize("cut", range(1, len(FPU) + 1))
def test_cut_at_its_front(made: Retracer, cut: int) -> None:
    text = f"one\ntwo {NAME[cut:]}+0x1\n".encode()
    assert made.text(text) == text
    assert places(made, Reason.NO_SUCH_NAME) == [("line 2", NAME[cut:].encode())]


@pytest.mark.parametrize("cut", range(1, len(NAME)))
@pytest.mark.parametrize(
    "line_break",
    ["\n", "\r\n", "=\n", "\n> ", "\n    ", "\n(XEN) ", "\n\x1b[K"],
    ids=["LF", "CRLF", "mail", "reply", "indented", "console", "terminal"],
)
def test_wrapped_anywhere(made: Retracer, cut: int, line_break: str) -> None:
    """Before the build-id, or in it: everything is reported, and nothing is lost, however the lines come."""
    text = f"(XEN) S {NAME[:cut]}{line_break}{NAME[cut:]}+0x3/0xd [p]\nS {NAME}\n".encode()
    expected = text[: text.rindex(NAME.encode())] + FPU.encode() + b"\n"
    kind = Reason.WRAPPED if cut > len(FPU) else Reason.NO_SUCH_NAME
    for chunks in ([text], text.splitlines(keepends=True), [text[i : i + 1] for i in range(len(text))]):
        made.missed = Missed()
        assert through(chunks, made) == expected
        (place,) = places(made, kind)
        assert place[0] == "line 2"
        assert kind == Reason.NO_SUCH_NAME or place[1] == NAME.encode()


def test_what_is_not_wrapped(made: Retracer) -> None:
    other = hashlib.sha1(b"q").hexdigest()
    begin = f"{FPU}_{ID[:20]}"
    for rest in (ID[20:] + "0", ID[20:-1], other[20:], f"\n{ID[20:]}", f"x {ID[20:]}", ""):
        text = f"{begin}\n{rest}\n".encode()
        assert made.text(text) == text
        assert b"".join(made.feed(text)) == text
    made.begin()  # another input does not continue the line
    assert made.text(f"{ID[20:]}\n".encode())
    assert not any(made.missed.times.values())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_utf_16(made: Retracer, encoding: str) -> None:
    text = f"some text\nS {NAME}+0x3/0xd [p]\nS other_{ID}\n".encode(encoding)
    assert made.text(text) == text
    assert places(made, Reason.WIDE) == [("line 2", NAME.encode())]
    assert bool(made.missed.wide_inputs) == (encoding in ("utf-16", "utf-32"))


def test_nul_between_names_is_no_utf_16(made: Retracer) -> None:
    assert made.text(f"{NAME}\0{NAME}\0\0{NAME}\0".encode()) == f"{FPU}\0{FPU}\0\0{FPU}\0".encode()
    assert not any(made.missed.times.values())


@pytest.mark.parametrize(
    ("suffix", "counts"), [(ID, True), (ID[:12], True), (ID[:7], True), ("v1", False), ("0123456789ab", False)]
)
def test_only_a_unique_suffix_tells_of_a_name(tmp_path: Path, suffix: str, counts: bool) -> None:
    """`x_v1` may be anything."""
    made = retracer(tmp_path, manifest("p", {"f": f"f_{suffix}"}, suffix=suffix))
    made.text(f"f_{suffix} x_{suffix}".encode())
    assert made.missed.times[Reason.NO_SUCH_NAME] == counts


@pytest.mark.parametrize("template", ["{symbol}{suffix}", "{suffix}{symbol}", "{symbol}{suffix}.x"])
def test_build_ids_by_themselves_are_no_names(tmp_path: Path, template: str) -> None:
    """Also if templates have nothing between them and the name."""
    name = template.format(symbol="f", suffix=ID)
    options = dict(plain("p")["options"], template=template)
    made = retracer(tmp_path, manifest("p", {"f": name}, options=options))
    digest = hashlib.sha256(b"x").hexdigest()
    text = f"build-id {ID}, sha256 {digest} {digest[:40]}, {name}".encode()
    assert made.text(text) == text.replace(name.encode(), b"f")
    assert not any(made.missed.times.values())
    assert not made.missed.unknown


def test_report(tmp_path: Path) -> None:
    """For each kind: how many, where, what to do; the log itself does not change."""
    folder = write(tmp_path / "m", plain("p", FPU))
    log = tmp_path / "console.log"
    log.write_text(f"{NAME}\n{NAME[1:]}\n{NAME[:-5]}\n{NAME[-5:]}\n")
    wide = tmp_path / "wide.log"
    wide.write_bytes(f"\n\n{NAME}\n".encode("utf-16"))
    done = run("-m", folder, log, wide)
    assert done.stdout == log.read_bytes().replace(NAME.encode(), FPU.encode(), 1) + wide.read_bytes()
    assert done.stderr.decode().splitlines() == [
        "lpmangle: 1 name was not put back: no payload with its build-id has such a name:",
        f"  {log}, line 2: {NAME[1:]}",
        "  hint: the start of the name was cut off, or is on the line before: get the log with whole lines",
        "lpmangle: 1 name was not put back: a line break is in its build-id:",
        f"  {log}, line 4: {NAME}",
        "  hint: get the log with whole lines",
        "lpmangle: 1 name was not put back: it is in UTF-16:",
        f"  {wide}, line 3: {NAME}",
        "  hint: convert the log first: iconv -f UTF-16 -t UTF-8",
        f"lpmangle: {wide}: begins with a byte-order mark of UTF-16; no names are found in UTF-16",
        "  hint: convert the log first: iconv -f UTF-16 -t UTF-8",
    ]


def test_many(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", plain("p", FPU))
    done = run("-m", folder, text=f"{NAME[1:]}\n".encode() * 100)
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith("lpmangle: 100 names ")
    assert lines[1] == f"  line 1: {NAME[1:]}"
    assert "  and 80 more" in lines


def test_interrupted(tmp_path: Path) -> None:
    """`tail -f` never ends otherwise."""
    folder = write(tmp_path / "m", plain("p", FPU))
    with subprocess.Popen(
        [*COMMAND, "-m", folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(f"{NAME[1:]}\n".encode())
        process.stdin.flush()
        assert process.stdout.readline() == f"{NAME[1:]}\n".encode()
        process.send_signal(signal.SIGINT)
        said = process.stderr.read().decode()
    assert process.returncode == 130
    assert said.startswith("lpmangle: 1 name was not put back: ")


LINES = b"".join(b"%d\n" % number for number in range(50_000))


@pytest.mark.parametrize("begin", [0, 5])
@pytest.mark.parametrize("way", ["file", "pipe"])
def test_line_numbers(tmp_path: Path, made: Retracer, way: str, begin: int) -> None:
    """Of a file and of a pipe, wherever reading begins, over many blocks."""
    name = NAME[1:].encode()
    wanted = [1, 2, 777, 30_000, 49_999]
    lines = [line + (b" " + name) * (number in wanted) for number, line in enumerate(LINES.splitlines(), 1)]
    text = b"\n".join(lines)
    with ExitStack() as stack:
        file: IO[bytes]
        if way == "file":
            (tmp_path / "log").write_bytes(b"x" * begin + text)
            file = stack.enter_context(open(tmp_path / "log", "rb"))
            file.seek(begin)
        else:
            (tmp_path / "log").write_bytes(text)
            feeder = stack.enter_context(subprocess.Popen(["cat", tmp_path / "log"], stdout=subprocess.PIPE))
            assert feeder.stdout
            file = feeder.stdout
        written: list[bytes] = []
        copy("log", file.fileno(), written.extend, made)
    assert b"".join(written) == text
    assert places(made, Reason.NO_SUCH_NAME) == [(f"line {number}", name) for number in wanted]


def test_lines_that_are_counted_no_more(made: Retracer, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an endless pipe, the byte is reported."""
    monkeypatch.setattr(missed, "MAX_COUNTED", 1000)
    lines = [b"x" * 99 + b"\n"] * 20
    lines[8] = lines[18] = NAME[1:].encode() + b"\n"
    through(lines, made)
    assert [place.where for place in made.missed.places[Reason.NO_SUCH_NAME]] == [
        "line 9",
        f"byte {len(b''.join(lines[:18]))}",
    ]
