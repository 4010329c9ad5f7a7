"""A mangled payload mangled in another way: restored first if its original can be recovered, else refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from builds import run
from commands import EXAMPLES, lpmangle

NAME = "fbab204.livepatch"
OTHERS = [("--suffix", "name"), ("--scope", "new"), ("--keep", "lp_helper"), ("--template", "{symbol}.{suffix}")]


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    path = Path(shutil.copy(EXAMPLES / NAME, tmp_path))
    lpmangle(path)
    return path


def state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def fresh(tmp_path: Path, *options: str) -> tuple[bytes, bytes]:
    """The original mangled with these options."""
    folder = tmp_path / "fresh"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = Path(shutil.copy(EXAMPLES / NAME, folder))
    lpmangle(*options, path)
    return path.read_bytes(), Path(f"{path}.manifest.json").read_bytes()


@pytest.mark.parametrize("options", OTHERS, ids=" ".join)
def test_it_becomes_what_the_original_becomes(payload: Path, options: tuple[str, str]) -> None:
    done = lpmangle(*options, payload)
    assert "(was mangled in another way; restored first)" in done.stdout
    manifest = Path(f"{payload}.manifest.json")
    assert (payload.read_bytes(), manifest.read_bytes()) == fresh(payload.parent, *options)
    lpmangle("verify", payload)
    lpmangle("restore", payload)
    assert payload.read_bytes() == (EXAMPLES / NAME).read_bytes()


def test_into_another_file(payload: Path) -> None:
    """The payload and its manifest do not change."""
    before = state(payload.parent)
    out = payload.with_name("out.livepatch")
    lpmangle("--suffix", "text:x", "-o", out, payload)
    assert out.read_bytes() == fresh(payload.parent, "--suffix", "text:x")[0]
    lpmangle("verify", out, "--original", EXAMPLES / NAME)
    assert before.items() <= state(payload.parent).items()


def test_several_and_a_dry_run(payload: Path) -> None:
    other = Path(shutil.copy(EXAMPLES / "617712b.livepatch", payload.parent))
    before = state(payload.parent)
    assert "x86_emulate.c#_get_fpu_fbab204\n" in lpmangle("--dry-run", "--suffix", "name", payload).stdout
    assert state(payload.parent) == before
    done = lpmangle("-j2", "--suffix", "name", payload, other)
    assert done.stdout.endswith("2 payloads: 2 mangled\n")
    assert payload.read_bytes() == fresh(payload.parent, "--suffix", "name")[0]


def test_what_a_build_does_before_is_done_to_the_original(payload: Path) -> None:
    command = ["lpmangle", "build", "--suffix", "name", "--before", "cp -t copy", "--result", NAME, "--", "true"]
    (payload.parent / "copy").mkdir()
    run(command, payload.parent)
    (copy,) = (payload.parent / "copy").iterdir()
    assert copy.read_bytes() == (EXAMPLES / NAME).read_bytes()
    assert payload.read_bytes() == fresh(payload.parent, "--suffix", "name")[0]


def test_a_manifest_that_is_kept_elsewhere(payload: Path) -> None:
    kept = payload.parent / "kept"
    kept.mkdir()
    Path(f"{payload}.manifest.json").unlink()
    shutil.copy(EXAMPLES / NAME, payload)
    for options in ((), ("--suffix", "name")):
        lpmangle("--manifest", kept / "m.json", *options, payload)
    assert payload.read_bytes() == fresh(payload.parent, "--suffix", "name")[0]
    lpmangle("verify", "-m", kept / "m.json", payload)


@pytest.mark.parametrize("manifest", ["none", "another payload's", "damaged", "forged"])
def test_without_its_original_it_is_refused(payload: Path, manifest: str) -> None:
    path = Path(f"{payload}.manifest.json")
    if manifest == "none":
        path.unlink()
    elif manifest == "another payload's":
        other = Path(shutil.copy(EXAMPLES / "617712b.livepatch", payload.parent))
        lpmangle(other)
        shutil.copy(f"{other}.manifest.json", path)
    elif manifest == "damaged":
        path.write_bytes(path.read_bytes()[:500])
    else:  # leads to other bytes than it says
        record = json.loads(path.read_text())
        record["symbols"][0]["original"] = "x86_emulate.c#other"
        path.write_text(json.dumps(record))
    before = state(payload.parent)
    error = lpmangle("--suffix", "name", payload, code=3).stderr
    assert "is already mangled, with --suffix buildid" in error
    assert "hint: to mangle it in another way, restore the original first" in error
    assert state(payload.parent) == before


def test_a_signed_one_is_refused(payload: Path) -> None:
    """Its signature is over its content."""
    payload.write_bytes(payload.read_bytes() + b"signature")
    before = state(payload.parent)
    assert "follow its last section" in lpmangle("--suffix", "name", payload, code=3).stderr
    assert state(payload.parent) == before


WARNED = ("--only", "nothing-fits")


@pytest.mark.parametrize("options", [(), ("--dry-run",), ("--json",), ("-o", "out.livepatch")], ids=" ".join)
def test_strict_makes_a_warning_an_error(tmp_path: Path, options: tuple[str, ...]) -> None:
    shutil.copy(EXAMPLES / NAME, tmp_path)
    before = state(tmp_path)
    done = lpmangle("--strict", *WARNED, *options, NAME, cwd=tmp_path, code=3)
    said = "with --strict no warning is allowed: no new symbol matches 'nothing-fits'"
    assert done.stderr == f"lpmangle: {NAME}: {said}\n  hint: nothing was written\n"
    if "--json" in options:
        assert json.loads(done.stdout)["payloads"][0]["error"] == said
    assert state(tmp_path) == before


def test_strict_in_a_build_and_for_a_lost_manifest(payload: Path) -> None:
    """A build's commands for the mangled payload, which may sign it, are not run."""
    folder = payload.parent
    Path(f"{payload}.manifest.json").unlink()
    before = state(folder)
    assert "has no manifest that fits" in lpmangle("--strict", payload, code=3).stderr
    words = ["lpmangle", "build", "--strict", *WARNED, "--after", "touch signed", "--result", NAME, "--", "true"]
    shutil.copy(EXAMPLES / NAME, payload)
    run(words, folder, code=3)
    assert payload.read_bytes() == (EXAMPLES / NAME).read_bytes()
    assert set(state(folder)) == set(before)
    lpmangle("--strict", payload)
