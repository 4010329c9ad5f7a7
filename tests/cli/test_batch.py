"""Many payloads in one call: each on its own, in one process or in several."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest
from commands import ROOT, lpmangle
from elfbuild import TEXT, Sym, build, build_id, funcs, plain

from lpmangle.system import pool as batch

LPMANGLE = [sys.executable, "-m", "lpmangle"]


def write(folder: Path, count: int, symbols: int = 3) -> list[str]:
    """`count` payloads, p000.livepatch ..., each with its own build-id."""
    names = []
    for number in range(count):
        table = [Sym(b"f.c#g%d" % index) for index in range(symbols)]
        data = build([TEXT, funcs(1), build_id((number + 1).to_bytes(20, "big"))], table).data
        names.append(f"p{number:03}.livepatch")
        (folder / names[-1]).write_bytes(data)
    return names


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("jobs", [1, 3])
def test_all_as_if_one_by_one(tmp_path: Path, jobs: int) -> None:
    names = write(tmp_path, 12)
    shutil.copytree(tmp_path, tmp_path / "single")
    done = lpmangle("-j", str(jobs), *names, cwd=tmp_path)
    single = [lpmangle(name, cwd=tmp_path / "single").stdout for name in names]
    assert done.stdout == "".join(single) + "12 payloads: 12 mangled\n"
    singles = contents(tmp_path / "single")
    shutil.rmtree(tmp_path / "single")
    assert contents(tmp_path) == singles
    assert len(singles) == 24


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_one_that_fails_does_not_stop_the_others(tmp_path: Path, jobs: int) -> None:
    names = write(tmp_path, 4)
    (tmp_path / "text").write_text("no elf\n")
    (tmp_path / "text").chmod(0o644)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    lpmangle(names[2], cwd=tmp_path)
    done = lpmangle(f"-j{jobs}", names[0], "text", names[1], "huge", names[2], cwd=tmp_path, code=4)
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [*names[:3], "5 payloads"]
    assert done.stdout.endswith("5 payloads: 2 mangled, 1 already mangled, 2 failed\n")
    assert done.stderr == ("lpmangle: text: not an ELF file\nlpmangle: huge: is too large (1099511627776 bytes)\n")
    assert lpmangle("text", names[3], cwd=tmp_path, code=3).stdout.endswith("1 mangled, 1 failed\n")


def test_fail_fast(tmp_path: Path) -> None:
    names = write(tmp_path, 4)
    (tmp_path / "text").write_text("no elf\n")
    done = lpmangle("--fail-fast", names[0], "text", *names[1:], cwd=tmp_path, code=3)
    assert done.stdout.endswith("\n5 payloads: 1 mangled, 1 failed, 3 not begun\n")
    assert not (tmp_path / f"{names[1]}.manifest.json").exists()
    texts = [f"text{number}" for number in range(40)]
    for text in texts:
        (tmp_path / text).write_text("no elf\n")
    done = lpmangle("--fail-fast", "-j2", "text", *names, *texts, cwd=tmp_path, code=3)
    assert " not begun\n" in done.stdout
    assert done.stderr.count("not an ELF file") <= 2  # those that were begun at the same time


def test_lists(tmp_path: Path) -> None:
    names = write(tmp_path, 6)
    odd = "a b#c.livepatch"
    (tmp_path / names[5]).rename(tmp_path / odd)
    (tmp_path / "list").write_text("\n".join([names[0], "", odd]))
    done = lpmangle("@list", names[1], cwd=tmp_path)
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [names[0], odd, names[1], "3 payloads"]
    assert "already mangled" in lpmangle("@list", cwd=tmp_path).stdout
    assert "p002" in lpmangle("@-", cwd=tmp_path, stdin=f"{names[2]}\n").stdout
    (tmp_path / "empty").touch()
    assert lpmangle("@empty", cwd=tmp_path).stdout == "0 payloads: nothing to do\n"
    (tmp_path / "@x.livepatch").write_bytes(plain().data)
    assert "symbols renamed" in lpmangle("./@x.livepatch", cwd=tmp_path).stdout


def test_output_folder(tmp_path: Path) -> None:
    names = write(tmp_path, 3)
    before = contents(tmp_path)
    (tmp_path / "out").mkdir()
    lpmangle("-j2", "-o", "out", *names, cwd=tmp_path)
    assert set(contents(tmp_path / "out")) == {*names, *(f"{name}.manifest.json" for name in names)}
    shutil.rmtree(tmp_path / "out")
    assert contents(tmp_path) == before
    assert "must be an existing folder" in lpmangle("-o", "out", *names, cwd=tmp_path, code=2).stderr
    assert "out: there is no such folder" in lpmangle("-o", "out/", *names, cwd=tmp_path, code=2).stderr
    (tmp_path / "out").mkdir()
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / names[0], tmp_path / "other")
    done = lpmangle("-o", "out", names[0], f"other/{names[0]}", cwd=tmp_path, code=2)
    assert f"2 payloads would be written to the same file, out/{names[0]}" in done.stderr
    assert not any((tmp_path / "out").iterdir())
    for options in (["--manifest", "m"], ["--depfile", "d", "-o", "out"]):
        assert "need a single payload" in lpmangle(*options, *names, cwd=tmp_path, code=2).stderr
    assert "--depfile needs -o" in lpmangle("--depfile", "d", names[0], cwd=tmp_path, code=2).stderr


def test_one_payload_into_a_folder(tmp_path: Path) -> None:
    """An existing folder is always a folder, and a path that ends with a slash always means one."""
    (name,) = write(tmp_path, 1)
    (tmp_path / "out").mkdir()
    for number, word in enumerate(("out", "out/", "./out/", "link", "link/", str(tmp_path / "out"))):
        if number == 3:
            (tmp_path / "link").symlink_to("out")
        done = lpmangle("-o", word, "--depfile", "d", name, cwd=tmp_path)
        place = os.path.join(word, name)
        assert done.stdout.startswith(f"{place}: 3 symbols renamed")
        assert (tmp_path / "d").read_text() == f"{place}: {name}\n"
        assert set(contents(tmp_path / "out")) == {name, f"{name}.manifest.json"}
        shutil.rmtree(tmp_path / "out")
        (tmp_path / "out").mkdir()
    lpmangle("-o", "new", name, cwd=tmp_path)
    assert (tmp_path / "new").is_file()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for word, said in (
        ("missing/", "missing: there is no such folder"),
        ("missing/x", "missing: there is no such folder"),
        ("out/missing/x", "out/missing: there is no such folder"),
        ("new/", "new: is a regular file, not a folder"),
        ("new/x", "new: is a regular file, not a folder"),
    ):
        assert lpmangle("-o", word, name, cwd=tmp_path, code=2).stderr == f"lpmangle: {said}\n"
        assert lpmangle("restore", "-o", word, name, cwd=tmp_path, code=2).stderr == f"lpmangle: {said}\n"
    for option in ("--manifest", "--depfile"):
        done = lpmangle("-o", "new", option, "missing/x", name, cwd=tmp_path, code=2)
        assert done.stderr == "lpmangle: missing: there is no such folder\n"
    lpmangle("restore", "-o", "out", "new", cwd=tmp_path)
    assert (tmp_path / "out" / "new").read_bytes() == (tmp_path / name).read_bytes()
    shutil.rmtree(tmp_path / "out")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_report(tmp_path: Path) -> None:
    """One shape, as in docs/json.md, for any number of payloads and any outcome."""
    names = write(tmp_path, 4)
    for text in ("text", "text2"):
        (tmp_path / text).write_text("no elf\n")
    (tmp_path / "empty").touch()
    page = (ROOT / "docs" / "json.md").read_text()
    documented = [
        key for cells in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for key in re.findall("`(.*?)`", cells)
    ]
    documented.remove("check")  # only for build
    for words, code, statuses in (
        (["--dry-run", names[0]], 0, ["would be mangled"]),
        ([names[0]], 0, ["mangled"]),
        ([names[0]], 0, ["already mangled"]),
        (["-j2", names[1], "text", names[2]], 3, ["mangled", "failed", "mangled"]),
        (["text"], 3, ["failed"]),
        (["text", "text2"], 3, ["failed", "failed"]),
        (["--against", "text", "-q", names[0], names[1]], 3, ["failed", "failed"]),
        (["--fail-fast", "text", names[3]], 3, ["failed", "not begun"]),
        (["@empty"], 0, []),
        (["@empty", names[0]], 0, ["already mangled"]),
    ):
        report = json.loads(lpmangle("--json", *words, cwd=tmp_path, code=code).stdout)
        assert list(report) == ["payloads"]
        assert [entry["status"] for entry in report["payloads"]] == statuses
        named = [word for word in words if word in (*names, "text", "text2")][-len(statuses) or len(words) :]
        assert [entry["payload"] for entry in report["payloads"]] == named
        for entry in report["payloads"]:
            assert list(entry) == documented
            assert (entry["error"] is not None) == (entry["exit_code"] != 0) == (entry["status"] == "failed")
            assert bool(entry["symbols"]) == (entry["status"] not in ("failed", "not begun"))
        assert max((entry["exit_code"] for entry in report["payloads"]), default=0) == code
    (entry,) = json.loads(lpmangle("--json", names[0], cwd=tmp_path).stdout)["payloads"]
    assert (entry["output"], entry["error"]) == (str(tmp_path / names[0]), None)
    (entry,) = json.loads(lpmangle("--json", "text", cwd=tmp_path, code=3).stdout)["payloads"]
    assert (entry["error"], entry["output"], entry["exit_code"]) == ("not an ELF file", None, 3)


def test_said_of_several(tmp_path: Path) -> None:
    names = write(tmp_path, 3)
    (tmp_path / "text").write_text("no elf\n")
    dry = lpmangle("--dry-run", *names, cwd=tmp_path).stdout
    assert dry.count("f.c#g0") == 6
    assert len(list(tmp_path.iterdir())) == 4
    done = lpmangle("-q", *names, "text", cwd=tmp_path, code=3)
    assert (done.stdout, done.stderr) == ("", "lpmangle: text: not an ELF file\n")
    assert lpmangle("-q", names[0], cwd=tmp_path).stdout == ""


@pytest.mark.parametrize("jobs", ["-j1", "-j3"])
def test_paths_to_one_file_are_one_payload(tmp_path: Path, jobs: str) -> None:
    """As in a package with livepatch.livepatch -> lp_1.livepatch; in whatever order, and by whatever path."""
    folder = tmp_path / "package"
    folder.mkdir()
    (tmp_path / "way").symlink_to("package")
    (name,) = write(folder, 1)
    original = (folder / name).read_bytes()
    (folder / "a.livepatch").symlink_to(name)
    (folder / "z.livepatch").symlink_to("a.livepatch")
    for words in (
        ["a.livepatch", name, "z.livepatch"],
        [name, name],
        [f"./{name}", name, f"../package/{name}"],
        [f"../way/{name}", "z.livepatch"],
        ["a.livepatch", "z.livepatch"],
    ):
        (folder / name).write_bytes(original)
        done = lpmangle(jobs, "--suffix", "name", "--embed", *words, cwd=folder)
        called = next((word for word in words if word.endswith(name)), words[0])
        assert done.stdout == f"{called}: 3 symbols renamed, suffix p000\n1 payload: 1 mangled\n", words
        assert {path.name for path in folder.iterdir()} == {
            name, "a.livepatch", "z.livepatch", f"{name}.manifest.json"
        }  # fmt: skip
        assert json.loads((folder / f"{name}.manifest.json").read_text())["payload"] == "p000"
        for path in (name, "a.livepatch", "z.livepatch"):
            assert "3 renamed symbols" in lpmangle("verify", path, cwd=folder).stdout
        assert (folder / "a.livepatch").is_symlink()
    (folder / name).write_bytes(original)
    lpmangle(jobs, "-o", tmp_path / "out", "a.livepatch", name, cwd=folder, code=2)
    (tmp_path / "out").mkdir()
    lpmangle(jobs, "-o", tmp_path / "out", "a.livepatch", name, cwd=folder)
    assert set(contents(tmp_path / "out")) == {name, f"{name}.manifest.json"}
    assert (folder / name).read_bytes() == original


def test_hard_links_are_one_payload(tmp_path: Path) -> None:
    """All links that were named lead to the result; any other keeps the old content."""
    (name,) = write(tmp_path, 1)
    original = (tmp_path / name).read_bytes()
    for other in ("b.livepatch", "c.livepatch"):
        os.link(tmp_path / name, tmp_path / other)
    (tmp_path / "link").symlink_to("b.livepatch")
    done = lpmangle("--suffix", "name", "link", name, cwd=tmp_path)
    assert done.stdout == f"{name}: 3 symbols renamed, suffix p000\n1 payload: 1 mangled\n"
    assert os.path.samefile(tmp_path / name, tmp_path / "b.livepatch")
    assert (tmp_path / name).read_bytes() != original
    assert (tmp_path / "c.livepatch").read_bytes() == original
    assert (tmp_path / "link").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {
        name, "b.livepatch", "c.livepatch", "link", f"{name}.manifest.json"
    }  # fmt: skip
    assert lpmangle("--suffix", "name", name, "link", cwd=tmp_path).stdout.endswith("1 payload: 1 already mangled\n")


def test_a_payload_has_the_name_of_its_file(tmp_path: Path) -> None:
    """Not that of a link to it: in the manifest, in the one inside, and where retrace decides by the name."""
    names = write(tmp_path, 2)
    for number, name in enumerate(names):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data.replace(b"f.c#g0", b"%d.c#g0" % number))
        (tmp_path / f"link{number}").symlink_to(name)
        options = ("--embed", "--template", "{name}_{suffix}", "--suffix", "text:same")
        lpmangle(*options, f"link{number}", cwd=tmp_path)
        assert json.loads((tmp_path / f"{name}.manifest.json").read_text())["payload"] == f"p00{number}"
        (tmp_path / f"{name}.manifest.json").unlink()
        (match,) = json.loads(lpmangle("query", "g0", "--json", "-m", f"link{number}", cwd=tmp_path).stdout)["matches"]
        assert match["payload"] == f"p00{number}"
    log = "g0_same+0x1/0x2 [p001]\ng0_same+0x1/0x2 [p000]\n"
    done = lpmangle("retrace", "-m", "link0", "-m", "link1", cwd=tmp_path, stdin=log)
    assert done.stdout == "1.c#g0+0x1/0x2 [p001]\n0.c#g0+0x1/0x2 [p000]\n"


def test_a_killed_worker_costs_one_payload() -> None:
    """Another worker replaces it; the order stays."""

    def work(number: int) -> int:
        if number in (0, 7):
            os.kill(os.getpid(), signal.SIGKILL)
        return number * number

    results = list(batch.run(range(20), work, jobs=3, lost=lambda number: -number - 1, stop=lambda result: False))
    assert results == [-1, *(number**2 for number in range(1, 7)), -8, *(number**2 for number in range(8, 20))]


def test_workers_work_at_the_same_time() -> None:
    met = get_context("fork").Barrier(8)

    def work(number: int) -> int:
        met.wait(60)  # for the seven others; an error if they do not come
        return os.getpid()

    workers = list(batch.run(range(8), work, jobs=8, lost=int, stop=lambda result: False))
    assert len(set(workers)) == 8


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    """Killed without a chance to tell them, it leaves no process behind."""
    code = """\
import os, sys, time
from lpmangle.system import pool as batch
def work(number):
    print(os.getpid(), flush=True)
    time.sleep(0.5)
for _ in batch.run(range(1_000_000), work, jobs=3, lost=print, stop=bool): pass
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.kill()
    _, stderr = process.communicate(timeout=60)  # ends when the last worker closes its stdout
    assert "Traceback" not in stderr


@pytest.mark.parametrize("everyone", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path: Path, number: signal.Signals, everyone: bool) -> None:
    """By a signal to all processes, as a terminal sends it, or to one.

    Each payload is the old or the new one with its manifest; no process and no temporary file stays.
    """
    names = write(tmp_path, 200, symbols=100)
    before = contents(tmp_path)
    process = subprocess.Popen(
        [*LPMANGLE, "-j3", *names],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    (os.killpg if everyone else os.kill)(process.pid, number)
    _, stderr = process.communicate(timeout=60)
    assert "Traceback" not in stderr
    assert process.returncode == 128 + number
    after = contents(tmp_path)
    assert set(after) <= {*names, *(f"{name}.manifest.json" for name in names)}
    changed = [name for name in names if after[name] != before[name]]
    assert 0 < len(changed) < 200
    assert {f"{name}.manifest.json" for name in changed} == set(after) - set(names)
    lpmangle("verify", changed[-1], cwd=tmp_path)


def on_terminal(command: list[str], cwd: Path) -> str:
    """The output of a command on a terminal."""
    shown = subprocess.run(["script", "-qec", " ".join(command), "/dev/null"], cwd=cwd, capture_output=True, check=True)
    return shown.stdout.decode()


def test_progress_bar(tmp_path: Path) -> None:
    """On a terminal, after some time, and removed at the end; never in a file."""
    names = write(tmp_path, 30)
    code = "from lpmangle.cli import main, progress; progress._PATIENCE, progress._PAUSE = {}, 0; main()"
    for name, patience in (("patient", "3600.0"), ("impatient", "0.0")):
        (tmp_path / name).write_text(f"#!{sys.executable}\n{code.format(patience)}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "out").mkdir()
    assert "[" not in on_terminal(["./patient", "-o", "out", *names], tmp_path)
    shown = on_terminal(["./impatient", "-q", "-o", "out", *names], tmp_path)
    bars = [f"[{'=' * number}{' ' * (30 - number)}] {number}/30 payloads" for number in range(1, 31)]
    assert shown == "".join(f"\r{bar}" for bar in bars) + "\r" + " " * len(bars[-1]) + "\r"
    done = subprocess.run(["./impatient", "-o", "out", *names], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_one_payload_does_not_pay_for_many(tmp_path: Path) -> None:
    (name,) = write(tmp_path, 1)
    code = f"""\
import sys
sys.argv = ["lpmangle", {name!r}]
from lpmangle.cli import main
try:
    main()
finally:
    print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "lpmangle.jobs.mangle" in loaded
    assert not {
        "multiprocessing",
        "lpmangle.system.pool",
        "lpmangle.cli.mangle_many",
        "lpmangle.cli.batch",
        "subprocess",
    } & set(loaded)
