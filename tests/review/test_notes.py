"""--note and --source: kept in the manifest, shown, found, compared."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import EXAMPLES, lpmangle

NOTES = ("--note", "XSA=458", "--note", "XSA=459", "--note", "source=git 1234")
KEPT = ["XSA=458", "XSA=459", "source=git 1234"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("617712b", "fbab204"):
        shutil.copy(EXAMPLES / f"{name}.livepatch", tmp_path)
    (tmp_path / "fix.patch").write_text("--- a\n+++ b\n")
    return tmp_path


def shown(path: str, folder: Path) -> Any:
    [found] = json.loads(lpmangle("show", "--json", path, cwd=folder).stdout)["payloads"]
    return found


@pytest.mark.parametrize("embed", [(), ("--embed",)], ids=["beside", "inside"])
def test_kept_and_shown(folder: Path, embed: tuple[str, ...]) -> None:
    lpmangle("-o", "plain.livepatch", "fbab204.livepatch", cwd=folder)
    lpmangle(*NOTES, "--source", "fix.patch", *embed, "fbab204.livepatch", cwd=folder)
    manifest = folder / "fbab204.livepatch.manifest.json"
    said = json.loads(manifest.read_text())
    digest = hashlib.sha256((folder / "fix.patch").read_bytes()).hexdigest()
    assert [f"{note['key']}={note['value']}" for note in said["notes"]] == KEPT
    assert said["source"] == {"sha256": digest, "size": 12}
    if embed:
        manifest.unlink()
    else:  # the payload is that without notes
        assert (folder / "plain.livepatch").read_bytes() == (folder / "fbab204.livepatch").read_bytes()
    found = shown("fbab204.livepatch", folder)
    assert (found["notes"], found["source_sha256"]) == (KEPT, digest)
    text = lpmangle("show", "fbab204.livepatch", cwd=folder).stdout
    assert "  notes     XSA=458, XSA=459, source=git 1234\n" in text
    assert f"  source    sha256 {digest}\n" in text
    lpmangle("verify", "fbab204.livepatch", cwd=folder)
    original = (EXAMPLES / "fbab204.livepatch").read_bytes()
    lpmangle("restore", "fbab204.livepatch", cwd=folder)
    assert (folder / "fbab204.livepatch").read_bytes() == original


def test_same_input_same_bytes(folder: Path) -> None:
    for name in ("one", "two"):
        (folder / name).mkdir()
        lpmangle(*NOTES, "--source", "fix.patch", "--embed", "-o", f"{name}/", "fbab204.livepatch", cwd=folder)
    for file in ("fbab204.livepatch", "fbab204.livepatch.manifest.json"):
        assert (folder / "one" / file).read_bytes() == (folder / "two" / file).read_bytes()


def test_again(folder: Path) -> None:
    """The same notes, or none, change nothing; others make another manifest, and the payload stays as it is."""
    lpmangle(*NOTES, "fbab204.livepatch", cwd=folder)
    files = {path: path.read_bytes() for path in folder.iterdir()}
    for words in (NOTES, ()):
        assert "already mangled" in lpmangle(*words, "fbab204.livepatch", cwd=folder).stdout
        assert {path: path.read_bytes() for path in folder.iterdir()} == files
    lpmangle("--note", "XSA=460", "fbab204.livepatch", cwd=folder)
    assert shown("fbab204.livepatch", folder)["notes"] == ["XSA=460"]
    assert (folder / "fbab204.livepatch").read_bytes() == files[folder / "fbab204.livepatch"]


def test_catalog(folder: Path) -> None:
    lpmangle("--note", "XSA=458", "617712b.livepatch", cwd=folder)
    lpmangle("--note", "XSA=458", "--note", "XSA=459", "fbab204.livepatch", cwd=folder)
    lpmangle("catalog", "add", "c.db", "617712b.livepatch", "fbab204.livepatch", cwd=folder)

    def find(*words: str, code: int = 0) -> list[str]:
        said = json.loads(lpmangle("catalog", "find", "--json", "c.db", *words, cwd=folder, code=code).stdout)
        return [one["payload"] for one in said.get("payloads") or said.get("matches", [])]

    assert find("--note", "XSA=458") == ["617712b", "fbab204"]
    assert find("--note", "XSA=458", "--note", "XSA=459") == ["fbab204"]
    assert find("--note", "XSA") == ["617712b", "fbab204"]
    assert find("--note", "XSA=45", code=1) == []
    assert find("_get_fpu", "--note", "XSA=459") == ["fbab204"]
    said = lpmangle("catalog", "find", "c.db", "--note", "XSA=459", cwd=folder).stdout
    assert said.splitlines()[0].split() == ["PAYLOAD", "BUILD-ID", "NOTES"]
    assert said.splitlines()[1].endswith("  XSA=458, XSA=459")
    done = lpmangle("catalog", "find", "c.db", "--note", "XSA=1", cwd=folder, code=1)
    assert done.stderr == "lpmangle: c.db: no payload has the note XSA=1\n"
    assert "  note         XSA=459\n" in lpmangle("catalog", "show", "c.db", "fbab204", cwd=folder).stdout
    lpmangle("catalog", "find", "c.db", cwd=folder, code=2)


def test_compared(folder: Path) -> None:
    lpmangle("--note", "XSA=457", "--note", "XSA=458", "617712b.livepatch", cwd=folder)
    lpmangle("--note", "XSA=458", "--note", "XSA=459", "fbab204.livepatch", cwd=folder)
    said = lpmangle("compare", "617712b.livepatch", "fbab204.livepatch", cwd=folder).stdout
    assert "\nnotes\n  only in OLD: XSA=457\n  both: XSA=458\n  only in NEW: XSA=459\n" in said
    found = json.loads(lpmangle("compare", "--json", "617712b.livepatch", "fbab204.livepatch", cwd=folder).stdout)
    assert found["notes"] == {"gone": ["XSA=457"], "both": ["XSA=458"], "new": ["XSA=459"]}


@pytest.mark.parametrize("word", ["XSA", "=458", "XSA=", "", "XSA=a\nb", " =x"])
def test_what_is_no_note(folder: Path, word: str) -> None:
    """A usage error, and nothing is done."""
    before = {path: path.read_bytes() for path in folder.iterdir()}
    done = lpmangle("--note", word, "fbab204.livepatch", cwd=folder, code=2)
    assert "is not a note: KEY=VALUE" in done.stderr
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_no_source(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    done = lpmangle("--source", "gone.patch", "617712b.livepatch", "fbab204.livepatch", cwd=folder, code=4)
    assert "gone.patch: cannot read: No such file or directory" in done.stderr
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_source_is_a_dependency(folder: Path) -> None:
    words = ("--source", "fix.patch", "--depfile", "d", "-o", "out.livepatch", "fbab204.livepatch")
    lpmangle(*words, cwd=folder)
    assert (folder / "d").read_text() == "out.livepatch: fbab204.livepatch fix.patch\n"
