"""lpmangle build: where the manifest is kept when the build folder is not."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from builds import ROOT, WRAPPER, environment, make_tree, names, options, run, write_patch

OLD, NEW = (ROOT / "examples" / f"{name}.livepatch" for name in ("617712b", "fbab204"))
BUILD_IDS = {OLD: "a46b5c175e2839ad0fcd31212d3715bde54b2c28", NEW: "d967c17f6518371e26e591728fd30fa3f292977c"}


def build(folder: Path, *words: str, payload: Path = NEW, code: int = 0) -> "subprocess.CompletedProcess[str]":
    """A build that makes p.livepatch."""
    command = ["lpmangle", "build", "--result=p.livepatch", *words, "--", "cp", str(payload), "p.livepatch"]
    return run(command, folder, code=code)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_manifest_in_a_file(tmp_path: Path) -> None:
    build(tmp_path, "--manifest", "kept.json")
    assert set(content(tmp_path)) == {"p.livepatch", "kept.json"}
    run(["lpmangle", "verify", "p.livepatch", "-m", "kept.json", "--original", str(NEW)], tmp_path)
    # It is another payload's then: of another name, or mangled by hand.
    before = content(tmp_path)
    shutil.copy(NEW, tmp_path / "q.livepatch")
    done = run(["lpmangle", "build", "--result=q.livepatch", "--manifest=kept.json", "--", "true"], tmp_path, code=4)
    assert "kept.json: is the manifest of p: not replaced" in done.stderr
    assert content(tmp_path) == before | {"q.livepatch": NEW.read_bytes()}


def test_manifests_of_many_builds_in_a_folder(tmp_path: Path) -> None:
    """Vendors build one patch for many versions of Xen: the payloads have one name and different build-ids."""
    (tmp_path / "kept").mkdir()
    for payload in (OLD, NEW):
        for folder in ("kept", "kept/"):
            build(tmp_path, "--manifest", folder, payload=payload)
        (tmp_path / payload.stem).mkdir()
        shutil.copy(tmp_path / "p.livepatch", tmp_path / payload.stem)
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {
        f"p-{build_id}.manifest.json" for build_id in BUILD_IDS.values()
    }
    for payload in (OLD, NEW):
        verify = ["lpmangle", "verify", f"{payload.stem}/p.livepatch", "-m", "kept", "--original", str(payload)]
        run(verify, tmp_path)


def test_manifest_of_a_payload_that_is_mangled_already(tmp_path: Path) -> None:
    """A tool that had nothing to do: the manifest is written nevertheless."""
    build(tmp_path)
    (tmp_path / "kept").mkdir()
    keep = ("--manifest", "kept/", "--catalog", "c.db")
    command = ["lpmangle", "build", "--result=p.livepatch", *keep, "--", "true"]
    written = (tmp_path / "p.livepatch").stat().st_mtime_ns
    assert run(command, tmp_path).stdout == "p.livepatch: already mangled\n"
    (tmp_path / "p.livepatch.manifest.json").rename(tmp_path / "beside")
    run(["lpmangle", "verify", "p.livepatch", "-m", "kept"], tmp_path)
    run(["lpmangle", "verify", "p.livepatch", "-m", "c.db"], tmp_path)
    # Now nothing changes.
    before = content(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    run(command, tmp_path)
    assert content(tmp_path) == before
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times
    assert times[tmp_path / "p.livepatch"] == written


@pytest.mark.parametrize("embed", [(), ("--embed",)], ids=["", "embed"])
def test_catalog(tmp_path: Path, embed: tuple[str, ...]) -> None:
    for payload in (OLD, NEW, NEW):
        build(tmp_path, "--catalog", "c.db", *embed, payload=payload)
    entries = json.loads(run(["lpmangle", "catalog", "list", "--json", "c.db"], tmp_path).stdout)
    assert [(entry["payload"], entry["build_id"]) for entry in entries] == [("p", id) for id in BUILD_IDS.values()]
    (tmp_path / "p.livepatch.manifest.json").unlink()
    run(["lpmangle", "verify", "p.livepatch", "-m", "c.db", "--original", str(NEW)], tmp_path)


def test_a_catalog_that_cannot_be_used_is_said_before_the_build(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no catalog\n")
    for words, code, said in (
        (["--catalog", "text"], 3, "text: is not a catalog"),
        (["--catalog", "no/c.db"], 2, "no: there is no such folder"),
        (["--manifest", "text"], 4, "text: exists and is not a manifest"),
        (["--manifest", "no/"], 2, "no: there is no such folder"),
        (["--catalog", ""], 2, "the path is empty"),
        (["--manifest", ""], 2, "the path is empty"),
        (["--manifest=x", "--catalog=./x"], 2, "name the same file"),
        (["--result=q.livepatch", "--manifest=m.json"], 2, "--manifest must be a folder"),
    ):
        done = build(tmp_path, *words, code=code)
        assert said in done.stderr
        assert set(content(tmp_path)) == {"text"}
    done = run(["lpmangle", "build", "--result=*", "--manifest=m.json", "--", "touch", "x"], tmp_path, code=2)
    assert "--manifest must be a folder" in done.stderr


def test_a_catalog_that_fails_after_the_build(tmp_path: Path) -> None:
    """The payload is as the linker left it, without a manifest; tests/faults has all that can happen."""
    command = ["lpmangle", "build", "--result=p.livepatch", "--catalog=c.db", "--"]
    done = run([*command, "sh", "-c", f"cp {NEW} p.livepatch; echo no catalog >c.db"], tmp_path, code=3)
    assert "c.db: is not a catalog" in done.stderr
    assert content(tmp_path) == {"p.livepatch": NEW.read_bytes(), "c.db": b"no catalog\n"}


def test_a_build_that_fails_makes_no_catalog(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    keep = ("--manifest", "kept/", "--catalog", "c.db")
    command = ["lpmangle", "build", "--result=p.livepatch", *keep, "--"]
    done = run([*command, "sh", "-c", f"cp {NEW} p.livepatch; rmdir kept"], tmp_path, code=4)
    assert "kept" in done.stderr
    assert content(tmp_path) == {"p.livepatch": NEW.read_bytes()}
    (tmp_path / "c.db").touch()  # as mktemp makes it
    (tmp_path / "kept").mkdir()
    run([*command, "sh", "-c", f"cp {NEW} p.livepatch; rmdir kept"], tmp_path, code=4)
    assert content(tmp_path) == {"p.livepatch": NEW.read_bytes(), "c.db": b""}


def test_builds_at_once_into_one_catalog(tmp_path: Path) -> None:
    processes = []
    for number in range(4):
        (tmp_path / f"{number}").mkdir()
        words = ["lpmangle", "build", "-q", "--result=p.livepatch", "--catalog=../c.db", "--suffix", f"text:v{number}"]
        command = [*words, "--", "cp", str(NEW), "p.livepatch"]
        processes.append(subprocess.Popen(command, cwd=tmp_path / f"{number}", env=environment()))
    assert [process.wait(60) for process in processes] == [0] * 4
    entries = json.loads(run(["lpmangle", "catalog", "list", "--json", "c.db"], tmp_path).stdout)
    assert {entry["suffix"] for entry in entries} == {f"v{number}" for number in range(4)}
    for number in range(4):
        run(["lpmangle", "verify", f"{number}/p.livepatch", "-m", "c.db"], tmp_path)


# As XCP-ng's script does: for each base a build in its own folder, of which only the payload is kept.
VENDOR = """\
set -eu
for NAME in lp_1-3 lp_2-3; do
    livepatch-build -s tree -p $NAME.patch -c config -o build --depends $ID --xen-depends $ID >log
    mv build/$NAME.livepatch .
    rm -rf build
done
"""


@pytest.mark.parametrize("flags", ["--embed", "--catalog shipped.db", "--manifest manifests", ""])
def test_drop_in_in_a_script_that_removes_the_build_folder(tmp_path: Path, flags: str) -> None:
    make_tree(tmp_path / "tree")
    for name in ("config", "bin/x", "manifests/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("lp_1-3", "lp_2-3"):
        write_patch(tmp_path / f"{name}.patch", f"-{name}")
    (tmp_path / "bin" / "livepatch-build").symlink_to(WRAPPER)
    script = VENDOR.replace("$ID", options()[-1])
    run(["sh", "-c", script], tmp_path, env=environment(tmp_path / "bin", LPMANGLE_FLAGS=flags))
    source = flags.split()[1:]
    for name in ("lp_1-3", "lp_2-3"):
        payload = f"{name}.livepatch"
        (new,) = [symbol for symbol in names(tmp_path / payload) if symbol.startswith("x86_emulate.c#_get_fpu")]
        assert new != "x86_emulate.c#_get_fpu"
        verify = ["lpmangle", "verify", payload, *(word for place in source for word in ("-m", place))]
        if not flags:  # the documentation warns of this
            done = subprocess.run(verify, cwd=tmp_path, env=environment(), capture_output=True, text=True)
            assert "has no manifest beside it" in done.stderr
            continue
        run(verify, tmp_path)
        found = run(["lpmangle", "query", new, *(["-m", source[0]] if source else ["-m", payload])], tmp_path).stdout
        assert found.startswith("x86_emulate.c#_get_fpu\n")
