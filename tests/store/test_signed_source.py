"""A payload that was signed after it was mangled is a SOURCE wherever it was one before."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from builds import ROOT, run
from signing import sign
from stacked import ident, stacked, write

from lpmangle.jobs.mangle import mangle_file
from lpmangle.jobs.restore import restore_file
from lpmangle.mangle.options import Options

EXAMPLE = ROOT / "examples" / "fbab204.livepatch"
SIGNED = "signed since (.note.Xen.signature, RSA, SHA-256)"
APPENDED = b"SIGNATURE"


@pytest.fixture(params=["note", "note of another tool", "appended", "note, manifest inside"])
def payload(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = Path(shutil.copy(EXAMPLE, tmp_path))
    inside = request.param.endswith("inside")
    mangle_file(str(path), Options("name", embed=inside))
    if inside:
        Path(f"{path}.manifest.json").unlink()
    if request.param == "appended":
        path.write_bytes(path.read_bytes() + APPENDED)
    else:
        sign(path, "llvm-objcopy" if "another" in request.param else "objcopy")
    return path


def test_everywhere(payload: Path) -> None:
    folder, name = payload.parent, payload.name
    for source in (name, "."):
        done = run(["lpmangle", "query", "_get_fpu", "-m", source], folder)
        assert "x86_emulate.c#_get_fpu_fbab204" in done.stdout
        done = run(["lpmangle", "retrace", "-m", source], folder, stdin="S lp_helper_fbab204+0x1/0x2 [fbab204]\n")
        assert done.stdout == "S lp_helper+0x1/0x2 [fbab204]\n"
    run(["lpmangle", "catalog", "add", "shipped.db", name], folder)
    assert "fbab204" in run(["lpmangle", "catalog", "find", "shipped.db", "lp_helper"], folder).stdout
    assert "verified" in run(["lpmangle", "verify", "-m", "shipped.db", name], folder).stdout
    assert "fbab204" in run(["lpmangle", "show", name], folder).stdout
    run(["lpmangle", "check", "--loaded", name, str(ROOT / "examples" / "617712b.livepatch")], folder)
    restore_file(str(payload), str(folder / "shipped.db"))
    assert payload.read_bytes() == EXAMPLE.read_bytes()


def test_of_two_manifests_its_own_is_taken(tmp_path: Path) -> None:
    """One payload, mangled in two ways: both have its build-id."""
    payload = Path(shutil.copy(EXAMPLE, tmp_path))
    for suffix in ("text:ONE", "text:TWO", "text:SIX"):
        mangle_file(str(payload), Options(suffix))
        run(["lpmangle", "catalog", "add", "shipped.db", payload.name], tmp_path)
        if suffix == "text:TWO":
            sign(payload)
            assert SIGNED in run(["lpmangle", "verify", "-m", "shipped.db", payload.name], tmp_path).stdout
        restore_file(str(payload))


def test_another_manifest_beside_it(tmp_path: Path) -> None:
    """It has the build-id, but other names."""
    payload = Path(shutil.copy(EXAMPLE, tmp_path))
    mangle_file(str(payload), Options("text:ONE"))
    other = Path(f"{payload}.manifest.json").read_bytes()
    restore_file(str(payload))
    mangle_file(str(payload), Options("text:TWO"))
    sign(payload)
    Path(f"{payload}.manifest.json").write_bytes(other)
    done = run(["lpmangle", "query", "_get_fpu", "-m", payload.name], tmp_path, code=3)
    assert "belongs to another payload, or the payload was changed since" in done.stderr
    done = run(["lpmangle", "verify", payload.name], tmp_path, code=1)
    assert "verified" not in done.stdout


def test_what_others_are_put_on(tmp_path: Path) -> None:
    lower = stacked(1, ident(9), new=["a.c#helper", "a.c#handler"])
    upper = stacked(2, ident(1), new=["b.c#own"], undefined=["a.c#helper"], replaces=["a.c#handler"])
    a, b = write(tmp_path, a=lower, b=upper)
    mangle_file(str(a), Options())
    shutil.copy(b, tmp_path / "copy")
    run(["lpmangle", "--against", str(a), str(b)], tmp_path)
    before = b.read_bytes()
    sign(a)
    shutil.copy(tmp_path / "copy", b)
    Path(f"{b}.manifest.json").unlink()
    run(["lpmangle", "--against", str(a), str(b)], tmp_path)
    assert b.read_bytes() == before
