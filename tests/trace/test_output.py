"""Where retrace writes to, and how: a file, JSON, a terminal in colour."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from commands import EXAMPLES, lpmangle

PAYLOAD = "617712b.livepatch"
BUILD_ID = "a46b5c175e2839ad0fcd31212d3715bde54b2c28"
ORIGINAL = "x86_emulate.c#_get_fpu"
NAME = f"{ORIGINAL}_{BUILD_ID}"
LOG = f"S {NAME}+0x3/0xd [617712b]\nplain {NAME} ".encode() + b"\xff\n\nlast"
READABLE = LOG.replace(NAME.encode(), ORIGINAL.encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(EXAMPLES / PAYLOAD, tmp_path)
    lpmangle("-q", PAYLOAD, cwd=tmp_path)
    (tmp_path / "log").write_bytes(LOG)
    return tmp_path


def test_to_a_file(folder: Path) -> None:
    """An existing log is replaced; several inputs are written one after the other."""
    (folder / "out").write_text("an older log, which is longer\n" * 100)
    done = lpmangle("retrace", "-m", PAYLOAD, "-o", "out", "log", "log", cwd=folder)
    assert (done.stdout, done.stderr) == ("", "")
    assert (folder / "out").read_bytes() == 2 * READABLE


def test_lines_are_in_the_file_at_once(folder: Path) -> None:
    command = [sys.executable, "-m", "lpmangle", "retrace", "-m", PAYLOAD, "-o", "pipe"]
    os.mkfifo(folder / "pipe")
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE) as process:
        assert process.stdin
        with (folder / "pipe").open("rb") as pipe:
            for line in LOG.splitlines(keepends=True)[:3]:
                process.stdin.write(line)
                process.stdin.flush()
                assert pipe.readline() == line.replace(NAME.encode(), ORIGINAL.encode())
            process.stdin.close()


@pytest.mark.parametrize("words", [["log"], ["link"], ["-"], [], ["--json", "log"]])
def test_an_input_is_not_the_output(folder: Path, words: list[str]) -> None:
    """Neither for `>>log`, where reading would never end, nor for `-o log <log`, which would begin by emptying it."""
    (folder / "link").symlink_to("log")
    command = [sys.executable, "-m", "lpmangle", "retrace", "-m", PAYLOAD, *words]
    for more, mode in (([], "ab"), (["-o", "log"], "rb")):
        with (folder / "log").open("rb") as stdin, (folder / "log").open(mode) as out:
            stdout = out if not more else subprocess.PIPE
            done = subprocess.run(
                [*command, *more], cwd=folder, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, timeout=60
            )
        assert done.returncode == 4
        assert b"hint: name another file with -o" in done.stderr
        assert (folder / "log").read_bytes() == LOG


@pytest.mark.parametrize("place", ["log", "link", PAYLOAD, f"{PAYLOAD}.manifest.json", "catalog.db"])
def test_what_it_does_not_write_over(folder: Path, place: str) -> None:
    """An input, and files with manifests."""
    (folder / "link").symlink_to("log")
    lpmangle("catalog", "add", "catalog.db", PAYLOAD, cwd=folder)
    before = (folder / place).read_bytes()
    done = lpmangle("retrace", "-m", PAYLOAD, "-o", place, "log", cwd=folder, code=4)
    assert "not replaced" in done.stderr
    assert (folder / place).read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["log", "missing", "-o", "old"], "missing: cannot read: No such file or directory"),
        (["log", "-o", "no/x"], "no/x: cannot write: No such file or directory"),
        (["log", "-o", "."], ".: cannot write: Is a directory"),
        (["log", "-o", "/dev/full"], "/dev/full: cannot write: No space left on device"),
    ],
)
def test_what_cannot_be_written(folder: Path, words: list[str], said: str) -> None:
    (folder / "old").write_text("an older log\n")
    assert lpmangle("retrace", "-m", PAYLOAD, *words, cwd=folder, code=4).stderr == f"lpmangle: {said}\n"
    assert (folder / "old").read_text() == "an older log\n"


def test_json(folder: Path) -> None:
    done = lpmangle("retrace", "-m", PAYLOAD, "--json", "log", cwd=folder)
    found = {"name": NAME, "original": ORIGINAL, "payload": "617712b", "build_id": BUILD_ID, "file": None, "line": None}
    assert list(map(json.loads, done.stdout.splitlines())) == [
        {"text": f"S {ORIGINAL}+0x3/0xd [617712b]", "names": [found]},
        {"text": f"plain {ORIGINAL} \\xff", "names": [found]},
        {"text": "", "names": []},
        {"text": "last", "names": []},
    ]
    lpmangle("retrace", "-m", PAYLOAD, "--json", "-o", "out", "log", cwd=folder)
    assert (folder / "out").read_text() == done.stdout


def test_json_of_a_line_without_end(folder: Path) -> None:
    """It comes in parts, and memory does not grow."""
    (folder / "log").write_bytes(b"x" * 5_000_000 + f" {NAME}\n".encode())
    records = list(map(json.loads, lpmangle("retrace", "-m", PAYLOAD, "--json", "log", cwd=folder).stdout.splitlines()))
    assert len(records) > 1
    assert "".join(record["text"] for record in records) == "x" * 5_000_000 + f" {ORIGINAL}"
    assert [name["name"] for record in records for name in record["names"]] == [NAME]


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_colour_on_a_terminal(folder: Path, variables: dict[str, str]) -> None:
    terminal, its_end = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "", **variables}
    command = [sys.executable, "-m", "lpmangle", "retrace", "-m", PAYLOAD, "log"]
    subprocess.run(command, cwd=folder, stdout=its_end, env=environment, check=True)
    os.close(its_end)
    said = b""
    with suppress(OSError):  # EIO: the other side is closed
        while data := os.read(terminal, 65536):
            said += data
    os.close(terminal)
    colour = b"\x1b[1;32m" + ORIGINAL.encode() + b"\x1b[m"
    assert said.replace(b"\r\n", b"\n") == LOG.replace(NAME.encode(), ORIGINAL.encode() if variables else colour)
