"""Many payloads in one call: each on its own, in one process or in several."""

import json
import os
import shutil
import signal
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest
from elfbuild import TEXT, Sym, build, build_id, funcs, plain

from lpmangle.system import pool as batch

LPMANGLE = [sys.executable, "-m", "lpmangle"]


def lpmangle(*args: str | Path, cwd: Path, code: int = 0, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command; its exit code must be `code`, and no traceback may show."""
    done = subprocess.run([*LPMANGLE, *map(str, args)], cwd=cwd, capture_output=True, text=True, input=stdin)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stdout + done.stderr
    return done


def write(folder: Path, count: int, symbols: int = 3) -> list[str]:
    """So many payloads, p000.livepatch ..., each with its own build-id."""
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
    done = lpmangle(f"-j{jobs}", names[0], "text", names[1], "missing", names[2], names[0], cwd=tmp_path, code=4)
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [*names[:3], names[0], "6 payloads"]
    assert done.stdout.endswith("6 payloads: 3 mangled, 1 already mangled, 2 failed\n")
    assert done.stderr == (
        "lpmangle: text: not an ELF file\nlpmangle: missing: cannot read: No such file or directory\n"
    )
    assert lpmangle("text", names[3], cwd=tmp_path, code=3).stdout.endswith("1 mangled, 1 failed\n")


def test_fail_fast(tmp_path: Path) -> None:
    names = write(tmp_path, 4)
    (tmp_path / "text").write_text("no elf\n")
    done = lpmangle("--fail-fast", names[0], "text", *names[1:], cwd=tmp_path, code=3)
    assert done.stdout.endswith("\n5 payloads: 1 mangled, 1 failed, 3 not begun\n")
    assert not (tmp_path / f"{names[1]}.manifest.json").exists()
    done = lpmangle("--fail-fast", "-j2", "text", *names, *["text"] * 40, cwd=tmp_path, code=3)
    assert " not begun\n" in done.stdout
    assert done.stderr.count("not an ELF file") <= 2  # what was begun at the same time


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
    assert "no-list: No such file" in lpmangle("@no-list", cwd=tmp_path, code=4).stderr
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
    assert "must exist" in lpmangle("-o", "out", *names, cwd=tmp_path, code=2).stderr
    (tmp_path / "out").mkdir()
    assert (
        "2 of the payloads would be written to"
        in lpmangle("-o", "out", names[0], names[0], cwd=tmp_path, code=2).stderr
    )
    for options in (["--manifest", "m"], ["--depfile", "d", "-o", "out"]):
        assert "go with a single payload" in lpmangle(*options, *names, cwd=tmp_path, code=2).stderr
    assert "--depfile needs -o" in lpmangle("--depfile", "d", names[0], cwd=tmp_path, code=2).stderr


def test_reports(tmp_path: Path) -> None:
    names = write(tmp_path, 3)
    (tmp_path / "text").write_text("no elf\n")
    dry = lpmangle("--dry-run", *names, cwd=tmp_path).stdout
    assert dry.count("f.c#g0") == 6
    assert len(list(tmp_path.iterdir())) == 4
    reports = json.loads(lpmangle("--json", "-j2", names[0], "text", names[1], cwd=tmp_path, code=3).stdout)
    assert [report["payload"] for report in reports] == [names[0], "text", names[1]]
    assert [report["status"] for report in reports] == ["mangled", "failed", "mangled"]
    assert (reports[1]["error"], reports[1]["exit_code"]) == ("not an ELF file", 3)
    single = json.loads(lpmangle("--json", names[2], cwd=tmp_path).stdout)
    assert reports[0].keys() == single.keys()
    done = lpmangle("-q", *names, "text", cwd=tmp_path, code=3)
    assert (done.stdout, done.stderr) == ("", "lpmangle: text: not an ELF file\n")
    assert lpmangle("-q", names[0], cwd=tmp_path).stdout == ""


def test_a_killed_worker_costs_one_payload() -> None:
    """Its place is taken by another one; the order stays."""

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
    """What it writes to a terminal."""
    shown = subprocess.run(["script", "-qec", " ".join(command), "/dev/null"], cwd=cwd, capture_output=True, check=True)
    return shown.stdout.decode()


def test_progress_bar(tmp_path: Path) -> None:
    """On a terminal, if it takes longer than people are patient, gone in the end; never into a file."""
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
    assert not {"multiprocessing", "lpmangle.system.pool", "lpmangle.cli.mangle_many", "subprocess"} & set(loaded)
