"""Hostile names: no control characters reach a terminal, and no file is created at a path from a name."""

from __future__ import annotations

import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from elfbuild import GLOBAL, HOOK, TEXT, Sym, build, build_id
from manifests import manifest

from lpmangle.cli.output import shown
from lpmangle.store.catalog_writing import add
from lpmangle.store.source import Found

# Escape sequences, C1 controls, bidirectional overrides, line separators.
EVIL = "../../x\x1b[2J\x1b]0;t\x07\x9b2K\x85\u202e\u2066\u2028\u200b\r\n forged: taken \x7f\x08"
NO_TEXT = b"../g\xed\xa0\x80\x1b[2J\xc2\x9b2K\xff"  # a lone surrogate, and bytes that are not UTF-8
FILE = os.fsencode("p\x1b]0;x\x07\x9b\n\u202e") + b"\xff"
SUFFIX = "ab" * 20
COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # that of `check`


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mangled payload with a hostile name and hostile symbols; its manifest; a catalog; a damaged manifest."""
    folder = tmp_path_factory.mktemp("outside") / "a" / "inside"
    folder.mkdir(parents=True)
    symbols = [
        Sym(EVIL.encode()),
        Sym(b"a.c#" + EVIL.encode()),
        Sym(NO_TEXT, bind=GLOBAL),
        Sym(EVIL.encode(), 0, GLOBAL),
    ]
    payload = folder / os.fsdecode(FILE + b".livepatch")
    for path in (payload, folder / "raw.livepatch"):
        path.write_bytes(build([TEXT, build_id(), HOOK], symbols).data)
    subprocess.run([sys.executable, "-m", "lpmangle", "-q", payload], check=True, stderr=subprocess.DEVNULL)
    Path(f"{payload}.manifest.json").rename(folder / "real.json")
    one = manifest(EVIL, {EVIL: f"{EVIL}_SUF", "plain": "plain_SUF"}, suffix="SUF")
    one["symbols"][1] |= {"type": EVIL, "binding": EVIL, "section": EVIL}
    two = manifest("two", {"other": "plain_SUF"}, suffix="SUF")
    (folder / "manifest.json").write_text(json.dumps(one))
    (folder / "two.json").write_text(json.dumps(two))
    (folder / "version.json").write_text(json.dumps(one | {"version": EVIL}))
    (folder / "log").write_text(f"plain_SUF+0x1 x_{'0' * 40} \x9bm\u202e_{'0' * 40}\n")
    (folder / "stack").write_text(f"# {EVIL.partition(chr(13))[0]}\nraw.livepatch\n")
    (folder / "bad-stack").write_text(EVIL)
    list(add(str(folder / "catalog.db"), [Found("", json.dumps(each).encode()) for each in (one, two)]))
    with sqlite3.connect(folder / "catalog.db") as db:
        db.execute("UPDATE manifest SET build_id = ?", (EVIL,))
    db.close()
    return folder


def on_terminal(command: list[str], cwd: Path) -> str:
    """The output on a terminal, stdout and stderr."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b"".join(_read(ours))
    os.close(ours)
    assert process.returncode in range(5), said
    return said.decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def _read(fd: int) -> Iterator[bytes]:
    try:
        while piece := os.read(fd, 1 << 16):
            yield piece
    except OSError:  # a terminal says so when the other side is closed
        return


NAME = os.fsdecode(FILE + b".livepatch")
COMMANDS = {
    "dry-run": ["--dry-run", "raw.livepatch"],
    "scope-new": ["--dry-run", "--scope", "new", "raw.livepatch"],
    "verbose": ["-v", "-o", "out.livepatch", "raw.livepatch"],
    "in-place": ["-v", "--if-changed", "-o", os.fsdecode(FILE + b"2.livepatch"), "raw.livepatch"],
    "again": [NAME],
    "many": ["--dry-run", NAME, "raw.livepatch", "none\x1b[2J"],
    "same-output": ["-o", ".", NAME, f"./{NAME}"],
    "list": ["@none\x1b]0;x\x07"],
    "query": ["query", "*", "-m", "manifest.json", "-m", "real.json"],
    "query-objcopy": ["query", "*", "-m", "manifest.json", "--format", "objcopy"],
    "query-nothing": ["query", f"none{EVIL}", "-m", "manifest.json"],
    "query-version": ["query", "x", "-m", "version.json"],
    "check": ["check", "raw.livepatch", NAME],
    "check-json": ["check", "--json", "raw.livepatch", NAME],
    "check-stack": ["check", "--stack", "stack", NAME],
    "check-bad-stack": ["check", "--stack", "bad-stack", NAME],
    "check-xen": ["check", "--xen", "log", NAME],
    "verify": ["verify", NAME, "-m", "real.json"],
    "verify-other": ["verify", NAME, "-m", "manifest.json"],
    "restore": ["restore", NAME, "-m", "real.json", "-o", os.fsdecode(b"back" + FILE)],
    "restore-other": ["restore", NAME, "-m", "manifest.json"],
    "no-manifest": ["verify", NAME],
    "retrace": ["retrace", "-m", "manifest.json", "-m", "two.json", "--annotate", "raw.livepatch\x1b[2J"],
    "catalog-list": ["catalog", "list", "catalog.db"],
    "catalog-find": ["catalog", "find", "catalog.db", "*"],
    "catalog-find-nothing": ["catalog", "find", "catalog.db", f"none{EVIL}"],
    "catalog-remove": ["catalog", "remove", "catalog.db", EVIL, f"none{EVIL}"],
    "catalog-add": ["catalog", "add", "other.db", "version.json"],
    "no-option": ["query", "--none\x1b[2J"],
    "build": ["build", "--result", NAME + "\x1b[2J", "--", "true"],
}


@pytest.mark.parametrize("what", COMMANDS)
def test_nothing_reaches_a_terminal(folder: Path, what: str) -> None:
    """Nor a pipe, except where names have to be exact."""
    outside = sorted(folder.parent.parent.rglob("*"))
    command = [sys.executable, "-m", "lpmangle", *COMMANDS[what]]
    said = on_terminal(command, folder)
    assert said
    assert "Traceback" not in said
    for line in COLOUR.sub("", said).split("\n"):
        assert line.isprintable(), line
        assert not line.startswith(" forged"), said
    if what != "query-objcopy":
        piped = subprocess.run(command, cwd=folder, capture_output=True)
        for line in (piped.stdout + piped.stderr).decode("utf-8", "surrogateescape").split("\n"):
            assert line.isprintable(), line
    new = [path for path in sorted(folder.parent.parent.rglob("*")) if path not in outside]
    assert all(path.parent == folder for path in new), new


def test_notes_of_retrace(folder: Path) -> None:
    """What retrace adds is safe; what it copies is copied exactly, even to a terminal."""
    command = [sys.executable, "-m", "lpmangle", "retrace", "-m", "manifest.json", "-m", "two.json", "log"]
    piped = subprocess.run(command, cwd=folder, capture_output=True)
    assert piped.stdout == (folder / "log").read_bytes()
    said = piped.stderr.decode()
    assert "plain_SUF has several meanings" in said
    assert shown(EVIL) in said
    assert all(line.isprintable() for line in said.split("\n"))
    assert "\x9bm\u202e" in on_terminal(command, folder)


def test_names_with_controls_are_not_put_into_a_log(tmp_path: Path) -> None:
    names = {"a\u202e": "a_SUF", "\x9b2J": "b_SUF", "c d": "c_SUF", "d": "d_SUF", "e\x85": "e_SUF"}
    (tmp_path / "m.json").write_text(json.dumps(manifest("p", names, suffix="SUF")))
    command = [sys.executable, "-m", "lpmangle", "retrace", "-m", "m.json"]
    log = b"a_SUF b_SUF c_SUF d_SUF e_SUF\n"
    done = subprocess.run(command, cwd=tmp_path, input=log, capture_output=True)
    assert (done.stdout, done.stderr) == (b"a_SUF b_SUF c_SUF d e_SUF\n", b"")


def test_names_are_exact_for_programs(folder: Path) -> None:
    command = [sys.executable, "-m", "lpmangle", "query", "*", "-m", "manifest.json", "--format"]
    found = json.loads(subprocess.run([*command, "json"], cwd=folder, capture_output=True).stdout)["matches"]
    assert {match["original"] for match in found} == {EVIL, "plain"}
    out = subprocess.run([*command, "objcopy"], cwd=folder, capture_output=True).stdout.decode()
    assert re.sub(r"\\(.)", r"\1", out, flags=re.DOTALL).startswith(f"--redefine-sym={EVIL}_SUF={EVIL}\n")


def test_what_is_shown_can_be_printed() -> None:
    every = "".join(map(chr, range(0x110000)))
    assert shown(every).isprintable()
    assert shown(every.encode("utf-8", "surrogatepass")).isprintable()
    assert shown(bytes(range(256))).isprintable()
    assert shown("é漢_get_fpu.cold") == "é漢_get_fpu.cold"
