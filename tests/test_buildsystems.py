"""lpmangle under make, ninja and a vendor's script: dependency files, unchanged outputs, the examples."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from builds import ROOT, environment, make_tree, names, run, write_patch
from signing import key, public

EXAMPLES = ROOT / "examples"
PAYLOADS = ("617712b.livepatch", "fbab204.livepatch")


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A copy of the examples, to build in."""
    return Path(shutil.copytree(EXAMPLES, tmp_path / "examples"))


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def age(path: Path, hours: int) -> None:
    """Set the time of a file to `hours` ago, or in the future."""
    then = time.time() - hours * 3600
    os.utime(path, (then, then))


def test_make(examples: Path) -> None:
    folder = examples / "make"
    done = run(["make", "-j4", "--output-sync"], folder)
    assert done.stdout.count("lpmangle -q") == 2
    assert done.stderr == ""
    out = folder / "out"
    assert {path.name for path in out.iterdir()} == {
        f"{name}{ending}" for name in PAYLOADS for ending in ("", ".d", ".manifest.json")
    }
    for name in PAYLOADS:
        run(["lpmangle", "verify", f"out/{name}", "--original", f"../{name}"], folder)
        assert (examples / name).read_bytes() == (EXAMPLES / name).read_bytes()
        age(out / name, 1)
        age(examples / name, 2)
    assert "Nothing to be done" in run(["make"], folder).stdout
    os.utime(examples / PAYLOADS[0])
    again = run(["make"], folder).stdout
    assert PAYLOADS[0] in again
    assert PAYLOADS[1] not in again
    signed = run(["make", "-s", "signed", "SIGN=sha256sum"], folder)
    assert signed.stderr == ""
    assert (out / f"{PAYLOADS[1]}.sig").read_text().endswith(f"out/{PAYLOADS[1]}\n")


def test_make_when_lpmangle_refuses(examples: Path) -> None:
    """No output, so the next make tries again; -k continues with the others."""
    (examples / PAYLOADS[0]).write_text("no payload\n")
    done = run(["make", "-k"], examples / "make", code=2)
    assert "617712b.livepatch: not an ELF file" in done.stderr
    assert set(times(examples / "make" / "out")) == {
        f"{PAYLOADS[1]}{ending}" for ending in ("", ".d", ".manifest.json")
    }
    run(["make"], examples / "make", code=2)


def test_ninja(examples: Path) -> None:
    folder = examples / "ninja"
    run(["ninja"], folder)
    before = times(folder / "out")
    assert set(before) == {f"{name}{ending}" for name in PAYLOADS for ending in ("", ".manifest.json", ".sig")}
    assert "no work to do" in run(["ninja"], folder).stdout
    # Built again with the same bytes: mangled again, with the same bytes, and not signed again.
    os.utime(examples / PAYLOADS[0])
    assert "[1/2] lpmangle out/617712b.livepatch" in run(["ninja"], folder).stdout
    assert times(folder / "out") == before
    assert "no work to do" in run(["ninja"], folder).stdout
    shutil.copy(EXAMPLES / PAYLOADS[1], examples / PAYLOADS[0])
    os.utime(examples / PAYLOADS[0])
    done = run(["ninja"], folder).stdout
    assert "sign out/617712b.livepatch.sig" in done
    assert "fbab204" not in done


def test_ninja_reads_the_dependency_file(examples: Path) -> None:
    """The dependency file says what the rule does not."""
    folder = examples / "ninja"
    build = folder / "build.ninja"
    text = build.read_text().replace("$in\n  depfile", "$from/$payload\n  depfile")
    for name in PAYLOADS:
        text = text.replace(f"mangle $from/{name}\n", f"mangle\n  payload = {name}\n")
    build.write_text(text)
    run(["ninja"], folder)
    assert "out/617712b.livepatch: #deps 1" in run(["ninja", "-t", "deps"], folder).stdout
    age(examples / PAYLOADS[0], -1)
    assert "lpmangle out/617712b.livepatch" in run(["ninja", "-n"], folder).stdout


@pytest.mark.parametrize("name", ["a b", "a#b", "a$b", "a:b", "a\\b", "a\\ b", "a\\\\ b", "ä", "~a", "a@{b}!+,[c]"])
def test_odd_names_in_dependency_files(tmp_path: Path, name: str) -> None:
    shutil.copy(EXAMPLES / PAYLOADS[1], tmp_path / name)
    run(["lpmangle", "-q", "--depfile", "d", "-o", "out", f"./{name}"], tmp_path)
    age(tmp_path / "out", 1)
    age(tmp_path / name, 2)
    (tmp_path / "Makefile").write_text("all: out\n-include d\nout:\n\t@echo made\n")
    assert "made" not in run(["make"], tmp_path).stdout
    os.utime(tmp_path / name)
    assert run(["make"], tmp_path).stdout == "made\n"
    (tmp_path / "build.ninja").write_text("rule r\n  command = touch out\n  depfile = d\nbuild out: r\n")
    os.utime(tmp_path / "out")
    age(tmp_path / name, 2)
    done = run(["ninja", "-d", "explain"], tmp_path)
    os.utime(tmp_path / "out")
    assert "no work to do" in run(["ninja"], tmp_path).stdout, done.stdout + done.stderr
    age(tmp_path / name, -3)
    assert "no work to do" not in run(["ninja"], tmp_path).stdout


@pytest.mark.parametrize("name", ["a\nb", "a%b", "a|b", "a;b", "a\\", "a*"])
def test_names_that_no_dependency_file_can_hold(tmp_path: Path, name: str) -> None:
    shutil.copy(EXAMPLES / PAYLOADS[1], tmp_path / name)
    done = run(["lpmangle", "--depfile", "d", "-o", "out", name], tmp_path, code=4)
    assert "do not both accept this name" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_if_changed(tmp_path: Path) -> None:
    """Each of the three files is written only if it would change."""
    payload = Path(shutil.copy(EXAMPLES / PAYLOADS[1], tmp_path / "in"))
    (tmp_path / "out").mkdir()
    command = ["lpmangle", "--if-changed", "--depfile", "out/d", "-o", "out/p", "in"]
    assert "5 symbols renamed" in run(command, tmp_path).stdout
    for path in (tmp_path / "out").iterdir():
        age(path, 1)
    before = times(tmp_path / "out")
    assert run(command, tmp_path).stdout == "out/p: unchanged\n"
    assert times(tmp_path / "out") == before
    (tmp_path / "out" / "p.manifest.json").unlink()
    (tmp_path / "out" / "d").write_text("something else")
    assert run(command, tmp_path).stdout == "out/p: unchanged\n"
    after = times(tmp_path / "out")
    assert [name for name in sorted(before) if after[name] == before[name]] == ["p"]
    shutil.copy(EXAMPLES / PAYLOADS[0], payload)
    assert "4 symbols renamed" in run(command, tmp_path).stdout
    # The rule is what it was.
    assert {name for name, now in times(tmp_path / "out").items() if now > after[name]} == {"p", "p.manifest.json"}
    run(["lpmangle", "--if-changed", "in"], tmp_path)
    run(["lpmangle", "verify", "in"], tmp_path)
    # Without it everything is written again.
    shutil.copy(EXAMPLES / PAYLOADS[0], payload)
    before = times(tmp_path / "out")
    run(["lpmangle", "-o", "out/p", "in"], tmp_path)
    assert times(tmp_path / "out")["p"] > before["p"]


def test_dry_run_writes_no_dependency_file(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / PAYLOADS[1], tmp_path / "in")
    run(["lpmangle", "--dry-run", "--depfile", "d", "-o", "out", "in"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    done = run(["lpmangle", "--depfile", "in", "-o", "out", "in"], tmp_path, code=2)
    assert "--depfile names the payload itself" in done.stderr


def test_two_makes_in_one_folder(examples: Path) -> None:
    """Both make everything at once: the result is complete."""
    env = environment()
    makes = [subprocess.Popen(["make", "-sj2"], cwd=examples / "make", env=env) for _ in range(3)]
    assert [make.wait(60) for make in makes] == [0, 0, 0]
    for name in PAYLOADS:
        run(["lpmangle", "verify", f"out/{name}"], examples / "make")
    assert len(times(examples / "make" / "out")) == 6


@pytest.fixture
def bases(tmp_path: Path) -> Path:
    """Two versions of Xen that a vendor's hosts run."""
    for number, version in enumerate(("4.17.4-1", "4.17.4-3")):
        base = tmp_path / "bases" / version
        make_tree(base / "tree")
        (base / "config").touch()
        (base / "build-id").write_text(f"{number}b" * 20 + "\n")
        write_patch(base / "fix.patch", f"-{version}")
    return tmp_path / "bases"


def test_vendor_script(bases: Path, tmp_path: Path) -> None:
    command = [str(EXAMPLES / "vendor" / "build-livepatches"), "4.17.4-5", "bases", "output"]
    done = run(command, tmp_path)
    stems = ["lp_4.17.4-1-4.17.4-5", "lp_4.17.4-3-4.17.4-5"]
    assert done.stdout.splitlines() == [f"output/{stem}.livepatch" for stem in stems]
    assert {path.name for path in (tmp_path / "output").iterdir()} == {
        f"{stem}.livepatch{ending}" for stem in stems for ending in ("", ".manifest.json")
    }
    for number, stem in enumerate(stems):
        payload = tmp_path / "output" / f"{stem}.livepatch"
        run(["lpmangle", "verify", str(payload)], tmp_path)
        assert f"x86_emulate.c#_get_fpu_{stem}" in names(payload)
        manifest = json.loads(Path(f"{payload}.manifest.json").read_text())
        assert (manifest["payload"], manifest["depends"]) == (stem, f"{number}b" * 20)


def test_vendor_script_that_signs(bases: Path, tmp_path: Path) -> None:
    """Built, mangled, signed, checked; names are looked up with the signed payload."""
    command = [str(EXAMPLES / "vendor" / "build-livepatches"), "4.17.4-5", "bases", "output", str(key())]
    payloads = run(command, tmp_path).stdout.split()
    assert len(payloads) == 2
    for payload in payloads:
        done = run(["lpmangle", "verify", "--key", str(public(key())), payload], tmp_path)
        assert "its signature is valid" in done.stdout
        assert "signed since (.note.Xen.signature, RSA, SHA-256)" in done.stdout
        stem = Path(payload).stem
        for command in (["query", "_get_fpu", "-m", payload], ["catalog", "add", "shipped.db", payload]):
            run(["lpmangle", *command], tmp_path)
        done = run(["lpmangle", "retrace", "-m", payload], tmp_path, stdin=f"S x86_emulate.c#_get_fpu_{stem}+0x3/0xd\n")
        assert done.stdout == "S x86_emulate.c#_get_fpu+0x3/0xd\n"
    assert "2 " in run(["lpmangle", "catalog", "add", "shipped.db", *payloads], tmp_path).stdout
    done = run(sign_command(tmp_path / "no-key.pem", tmp_path / payloads[0]), tmp_path, code=1)
    assert "no-key.pem" in done.stderr
    run(["lpmangle", "verify", "--key", str(public(key())), payloads[0]], tmp_path)


def sign_command(private: Path, payload: Path) -> list[str]:
    return [str(EXAMPLES / "vendor" / "sign-payload"), str(private), str(payload)]


@pytest.mark.parametrize("tool", ["objcopy", "llvm-objcopy"])
def test_sign_payload_after_a_build(tmp_path: Path, tool: str) -> None:
    """As in the README: the last step of `lpmangle build`."""
    shutil.copy(EXAMPLES / PAYLOADS[0], tmp_path)
    after = " ".join(sign_command(key(), Path())[:-1])
    command = ["lpmangle", "build", "--result", PAYLOADS[0], "--after", after, "--", "true"]
    run(command, tmp_path, env=environment(OBJCOPY=tool))
    done = run(["lpmangle", "verify", "--key", str(public(key())), PAYLOADS[0]], tmp_path)
    assert "its signature is valid" in done.stdout


def test_vendor_script_when_one_base_fails(bases: Path, tmp_path: Path) -> None:
    (bases / "4.17.4-3" / "fix.patch").write_text("--- a/xen/no.c\n+++ b/xen/no.c\n@@ -1 +1,2 @@\n x\n+y\n")
    command = [str(EXAMPLES / "vendor" / "build-livepatches"), "4.17.4-5", "bases", "output"]
    done = run(command, tmp_path, code=1)
    assert "lp_4.17.4-3-4.17.4-5 failed:" in done.stderr
    assert "the patch does not apply" in done.stderr
    assert list((tmp_path / "output").iterdir()) == []
