"""lpmangle build --check: a payload that Xen would refuse stays as the linker left it."""

import shutil
from pathlib import Path

import pytest
from builds import ROOT, is_mangled, make_tree, names, options, run, write_patch

TOOL = ["livepatch-build"]
OLD, NEW = (ROOT / "examples" / f"{name}.livepatch" for name in ("617712b", "fbab204"))
# With these it is refused: it keeps the name that it shares with the loaded payload.
REFUSED = ["--check", "--loaded", str(OLD), "--keep", "*_get_fpu"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_tree(tmp_path / "tree")
    write_patch(tmp_path / "next.patch", "-next")
    (tmp_path / "config").touch()
    return tmp_path


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file()}


def test_taken_and_refused(folder: Path) -> None:
    """With the payload before it loaded, unmangled as it was shipped: names that are not renamed are refused."""
    write_patch(folder / "fix.patch")
    run([*TOOL, *options(output="old")], folder)
    command = ["lpmangle", "build", "--check", "--loaded", "old/fix.livepatch"]
    done = run([*command, "--keep", "*_get_fpu", "--", *TOOL, *options("next.patch", "new")], folder, code=1)
    assert "renamed" not in done.stdout
    assert "lpmangle: new/next.livepatch: check: refused: livepatch: next: duplicate new symbol: " in done.stderr
    assert "  > refused EEXIST (17): " in done.stdout
    assert not is_mangled(folder / "new" / "next.livepatch")
    done = run([*command, "--", *TOOL, *options("next.patch", "good")], folder)
    assert done.stdout.endswith("good/next.livepatch: check: accepted (not all checked)\n")
    assert is_mangled(folder / "good" / "next.livepatch")
    assert "check" not in run([*command, "-q", "--", *TOOL, *options("next.patch", "q")], folder).stdout


def test_nothing_of_a_refused_one_is_kept(tmp_path: Path) -> None:
    """Neither a manifest nor an entry in a catalog, new or old; what an earlier build left is as it was."""
    shutil.copy(OLD, tmp_path / "p.livepatch")
    keep = ["--catalog", "c.db", "--manifest", "m.json"]
    run(["lpmangle", "build", "--result=p.livepatch", *keep, "--", "true"], tmp_path)
    shutil.copy(NEW, tmp_path / "p.livepatch")
    before = files(tmp_path)
    for more in ([], ["--embed"], ["--manifest", "other.json", "--catalog", "other.db"]):
        command = ["lpmangle", "build", "--result=p.livepatch", *keep, *more, *REFUSED, "--", "true"]
        run(command, tmp_path, code=1)
        assert files(tmp_path) == before


def test_one_that_was_mangled_before_stays_mangled(tmp_path: Path) -> None:
    """A tool that had nothing to do; the names are those of an earlier run with other options."""
    shutil.copy(NEW, tmp_path / "p.livepatch")
    run(["lpmangle", "--keep", "*_get_fpu", "p.livepatch"], tmp_path)
    before = files(tmp_path)
    done = run(["lpmangle", "build", "--result=p.livepatch", *REFUSED, "--", "true"], tmp_path, code=1)
    assert "duplicate new symbol: x86_emulate.c#_get_fpu" in done.stderr
    assert files(tmp_path) == before


def test_what_is_checked_is_what_is_written(tmp_path: Path) -> None:
    """With the manifest inside, it may be larger than Xen accepts."""
    shutil.copy(NEW, tmp_path / "p.livepatch")
    size = 2 * 1024 * 1024 - NEW.stat().st_size - 1000  # the new names fit, a manifest does not
    (tmp_path / "filling").write_bytes(bytes(size))
    run(["objcopy", "--add-section", "filling=filling", "p.livepatch"], tmp_path)
    command = ["lpmangle", "build", "--result=p.livepatch", "--check"]
    before = files(tmp_path)
    done = run([*command, "--embed", "--", "true"], tmp_path, code=1)
    assert "check: refused" in done.stderr
    assert "a payload has at most 2 MiB" in done.stdout
    assert files(tmp_path) == before
    run([*command, "--", "true"], tmp_path)


def test_each_of_several_is_on_its_own(tmp_path: Path) -> None:
    """Both are for the hypervisor as it is; one that is refused does not stop the other."""
    write = f"cp {OLD} a.livepatch; cp {NEW} b.livepatch; cp {NEW} c.livepatch"
    command = ["lpmangle", "build", "--result=*.livepatch", "--suffix=name", "--check", "--loaded", str(OLD)]
    done = run([*command, "--", "sh", "-c", write], tmp_path, code=1)
    assert "a.livepatch: check: refused" in done.stderr  # the same build-id is loaded
    assert done.stdout.count(": check: accepted (not all checked)\n") == 2
    assert [path.name for path in sorted(tmp_path.glob("*.manifest.json"))] == [
        f"{name}.livepatch.manifest.json" for name in ("b", "c")
    ]
    assert names(tmp_path / "a.livepatch") == names(OLD)


@pytest.mark.parametrize(
    ("option", "code", "said"),
    [
        ("--xen", 4, "missing: cannot read: No such file"),
        ("--loaded", 2, "missing: there is no such file"),
    ],
)
def test_its_files_are_read_before_the_build(tmp_path: Path, option: str, code: int, said: str) -> None:
    build = ["lpmangle", "build", "--result", "x", option]
    done = run([*build, "missing", "--check", "--", "touch", "built"], tmp_path, code=code)
    assert f"lpmangle: {said}" in done.stderr
    run([*build, str(OLD), "--", "touch", "built"], tmp_path, code=2)  # they are for --check
    assert not (tmp_path / "built").exists()
