"""lpmangle restore: the original, byte for byte, or a refusal that leaves every file as it was."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from builds import ROOT, run

from lpmangle.errors import ManifestError
from lpmangle.jobs.restore import restore_file

EXAMPLES = ROOT / "examples"
EXAMPLE = EXAMPLES / "fbab204.livepatch"


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    path = Path(shutil.copy(EXAMPLE, tmp_path))
    lpmangle(path)
    return path


def lpmangle(*words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    return run(["lpmangle", *map(str, words)], ROOT, code=code)


def test_in_place(payload: Path) -> None:
    manifest = json.loads(Path(f"{payload}.manifest.json").read_text())
    done = restore_file(str(payload))
    assert payload.read_bytes() == EXAMPLE.read_bytes()
    assert (done.path, done.output, done.status) == (str(payload), str(payload), "restored")
    assert done.sha256 == manifest["input"]["sha256"]
    assert Path(f"{payload}.manifest.json").exists()


def test_to_another_file(payload: Path) -> None:
    mangled, back = payload.read_bytes(), payload.parent / "back"
    (report,) = json.loads(lpmangle("restore", "--json", "-o", back, payload).stdout)["payloads"]
    assert (report["output"], report["status"]) == (str(back), "restored")
    assert back.read_bytes() == EXAMPLE.read_bytes()
    assert payload.read_bytes() == mangled


def test_the_original_already(payload: Path) -> None:
    restore_file(str(payload))
    before = payload.stat().st_mtime_ns
    assert restore_file(str(payload)).status == "is the original already"
    assert payload.stat().st_mtime_ns == before
    back = payload.parent / "back"
    assert "is the original already" in lpmangle("restore", "-o", back, payload).stdout
    assert back.read_bytes() == EXAMPLE.read_bytes()


def test_another_payload_is_not_mangled(payload: Path) -> None:
    """The manifest stayed when a build wrote a new payload over it."""
    other = EXAMPLES / "617712b.livepatch"
    shutil.copy(other, payload)
    with pytest.raises(ManifestError, match="is not mangled, and its manifest belongs to another"):
        restore_file(str(payload))
    assert payload.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("command", [["objcopy"], ["eu-strip"], ["strip", "-g"]], ids=" ".join)
def test_what_was_laid_out_anew(payload: Path, command: list[str]) -> None:
    """Its sections are as they were, and the manifest has the rest."""
    subprocess.run([*command, payload], check=True)
    assert "restored" in lpmangle("restore", payload).stdout
    assert payload.read_bytes() == EXAMPLE.read_bytes()


def test_a_signature_appended_to_the_original(payload: Path) -> None:
    payload.write_bytes(EXAMPLE.read_bytes() + b"SIGNATURE")
    assert restore_file(str(payload)).status == "restored"
    assert payload.read_bytes() == EXAMPLE.read_bytes()


def test_what_was_changed_since(payload: Path) -> None:
    (payload.parent / "data").write_bytes(b"x")
    subprocess.run(["objcopy", f"--update-section=.data={payload.parent}/data", payload], check=True)
    before = payload.read_bytes()
    said = lpmangle("restore", payload, code=3).stderr
    assert "is not what lpmangle wrote: it was changed since, in section .data" in said
    assert "hint: take the file as lpmangle left it" in said
    assert payload.read_bytes() == before


def test_a_manifest_that_does_not_lead_back(payload: Path) -> None:
    path = Path(f"{payload}.manifest.json")
    manifest = json.loads(path.read_text())
    manifest["symbols"][0]["st_name"] += 1
    path.write_text(json.dumps(manifest))
    before = payload.read_bytes()
    assert "does not lead back to the original" in lpmangle("restore", payload, code=3).stderr
    assert payload.read_bytes() == before
