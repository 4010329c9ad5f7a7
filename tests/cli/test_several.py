"""restore and verify with several payloads, as in mangle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import EXAMPLES, lpmangle

NAMES = ("617712b.livepatch", "fbab204.livepatch")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two mangled payloads, a file that is not a payload, and a list."""
    for name in NAMES:
        shutil.copy(EXAMPLES / name, tmp_path)
    lpmangle("-q", *NAMES, cwd=tmp_path)
    (tmp_path / "bad.livepatch").write_text("no payload\n")
    (tmp_path / "list").write_text("\n".join([NAMES[0], "bad.livepatch", NAMES[1], f"./{NAMES[0]}", ""]))
    (tmp_path / "out").mkdir()
    return tmp_path


def original(name: str) -> bytes:
    return (EXAMPLES / name).read_bytes()


def test_restore_a_list(folder: Path) -> None:
    """One that fails does not affect the others; two paths to a file are one payload."""
    done = lpmangle("restore", "@list", cwd=folder, code=3)
    assert [line.partition(",")[0] for line in done.stdout.splitlines()] == [
        *(f"{name}: restored" for name in NAMES),
        "3 payloads: 2 restored",
    ]
    assert done.stdout.endswith("3 payloads: 2 restored, 1 failed\n")
    assert done.stderr == "lpmangle: bad.livepatch: not an ELF file\n"
    assert [(folder / name).read_bytes() for name in NAMES] == [original(name) for name in NAMES]


def test_restore_into_a_folder(folder: Path) -> None:
    before = [(folder / name).read_bytes() for name in NAMES]
    assert lpmangle("restore", "-q", "-o", "out", *NAMES, cwd=folder).stdout == ""
    assert [(folder / "out" / name).read_bytes() for name in NAMES] == [original(name) for name in NAMES]
    assert [(folder / name).read_bytes() for name in NAMES] == before
    assert "must be an existing folder" in lpmangle("restore", "-o", "x", *NAMES, cwd=folder, code=2).stderr
    same = lpmangle("restore", "-o", "out", NAMES[0], f"out/{NAMES[0]}", cwd=folder, code=2).stderr
    assert f"2 payloads would be written to the same file, out/{NAMES[0]}" in same


def test_restore_through_hard_links(folder: Path) -> None:
    os.link(folder / NAMES[1], folder / "link")
    assert lpmangle("restore", NAMES[1], "link", cwd=folder).stdout.endswith("1 payload: 1 restored\n")
    assert (folder / "link").read_bytes() == original(NAMES[1])
    assert (folder / "link").samefile(folder / NAMES[1])


def test_verify_several(folder: Path) -> None:
    done = lpmangle("verify", *NAMES, cwd=folder)
    assert done.stdout.endswith("2 payloads: 2 verified\n")
    assert lpmangle("verify", "-q", *NAMES, cwd=folder).stdout == ""
    assert lpmangle("verify", NAMES[0], cwd=folder).stdout.count("\n") == 1  # no total for one
    for name in NAMES:
        (folder / "out" / name).write_bytes(original(name))
    lpmangle("verify", "--original", "out", *NAMES, cwd=folder)
    (folder / "out" / NAMES[0]).write_bytes(original(NAMES[1]))
    done = lpmangle("verify", "-q", "--original", "out", *NAMES, cwd=folder, code=1)
    assert all(line.startswith(f"{NAMES[0]}: ") for line in done.stdout.splitlines())
    assert done.stdout
    assert lpmangle("verify", "--original", NAMES[0], *NAMES, cwd=folder, code=2).stdout == ""


def test_the_worst_exit_code_and_json(folder: Path) -> None:
    data = bytearray((folder / NAMES[1]).read_bytes())
    data[300] ^= 1  # in .livepatch.funcs: its old value is not known
    (folder / NAMES[1]).write_bytes(data)
    assert lpmangle("verify", *NAMES, cwd=folder, code=1).stdout.endswith("2 payloads: 1 verified, 1 differs\n")
    report = json.loads(lpmangle("verify", "--json", "@list", cwd=folder, code=3).stdout)["payloads"]
    assert [(one["status"], one["exit_code"]) for one in report] == [("verified", 0), ("failed", 3), ("differs", 1)]
    assert len({tuple(one) for one in report}) == 1
    report = json.loads(lpmangle("restore", "--json", "@list", cwd=folder, code=3).stdout)["payloads"]
    assert [one["status"] for one in report] == ["restored", "failed", "failed"]
    assert "is not what lpmangle wrote" in report[2]["error"]


@pytest.mark.parametrize("command", ["restore", "verify"])
def test_usage_comes_before_work(folder: Path, command: str) -> None:
    (folder / "missing").write_text(f"{NAMES[0]}\nmissing.livepatch\n")
    before = (folder / NAMES[0]).read_bytes()
    for words in ([NAMES[0], "missing.livepatch"], ["@missing"], ["@nowhere"], [NAMES[0], "verify"]):
        assert lpmangle(command, *words, cwd=folder, code=2).stdout == ""
        assert (folder / NAMES[0]).read_bytes() == before


def test_lief_is_loaded_once(folder: Path) -> None:
    """In one process, however many payloads there are."""
    command = [sys.executable, "-X", "importtime", "-m", "lpmangle", "verify", "-q", *NAMES]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert sum(line.endswith("| lief") for line in done.stderr.replace("|   ", "| ").splitlines()) == 1
