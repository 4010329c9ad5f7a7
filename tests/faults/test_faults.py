"""Every call on files fails in turn, or is the last thing the process does: no payload is lost, and none its manifest.

`make test` tries at each call what Linux is known to do there, in the scenarios that differ most; `make faults`
(LPMANGLE_FAULTS=all) tries all faults at all calls in all scenarios.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from builds import run
from signing import sign

from faults.harness import FAULTS, Scenario, Servers
from faults.scenarios import IN_MAKE_TEST, NEW, SCENARIOS, older_output
from faults.trial import Trial, out_of_order

ALL = os.environ.get("LPMANGLE_FAULTS") == "all"
# The most problems that are shown.
MOST = 20


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("faults"), len(os.sched_getaffinity(0)))
    yield servers
    servers.close()


@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if ALL or s.name in IN_MAKE_TEST], ids=str)
def test_nothing_is_lost(scenario: Scenario, servers: Servers) -> None:
    trial = Trial(scenario, servers)
    work = trial.work(FAULTS if ALL else IN_MAKE_TEST[scenario.name], complete=ALL)
    assert len(work) > 20
    with ThreadPoolExecutor(servers.count) as pool:
        problems = [problem for problem in pool.map(lambda one: trial.disturb(*one), work) if problem]
    assert not problems, f"{len(problems)} of {len(work)} runs:\n" + "\n".join(problems[:MOST])


@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if "catalog" not in s.name], ids=str)
def test_on_disk_in_order(scenario: Scenario, servers: Servers) -> None:
    """After a loss of power too a payload has its manifest. (SQLite sees to that itself for a catalog.)"""
    trial = Trial(scenario, servers)
    assert sum(call.name == "fsync" for call in trial.calls) >= 2
    assert list(out_of_order(trial.calls, scenario)) == []


# --- The harness itself, against strace ------------------------------------------------------

NAMES = {
    **dict.fromkeys(("newfstatat", "fstat", "stat", "lstat", "access", "faccessat2", "readlink", "readlinkat"), "stat"),
    **dict.fromkeys(("open", "openat"), "open"),
    **dict.fromkeys(("read", "pread64"), "read"),
    **dict.fromkeys(("write", "pwrite64"), "write"),
    **dict.fromkeys(("rename", "renameat", "renameat2"), "rename"),
    **dict.fromkeys(("link", "linkat"), "link"),
    **dict.fromkeys(("unlink", "unlinkat"), "unlink"),
    **dict.fromkeys(("flock", "fcntl"), "lock"),
    "close": "close",
    "fchmod": "chmod",
    "fchown": "chown",
    "mkdir": "mkdir",
}
# They change nothing, and cannot fail for an external reason.
HARMLESS = ("lseek", "ioctl", "getdents64", "chdir", "getcwd")


@pytest.fixture
def strace(tmp_path: Path) -> Path:
    """strace, if it may trace here; the file for its output."""
    done = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True)
    if done.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(f"strace is needed here: {done.stderr}")
        pytest.skip(f"strace may not trace: {done.stderr}")
    return tmp_path / "trace"


def test_no_call_is_overlooked(tmp_path: Path, strace: Path) -> None:
    """What inject.c has counted are all system calls on the folder. (It makes no fsync; of fcntl it counts locks.)"""
    # -ff: a file for each process, in which no call of another one can interrupt a line.
    trace = ("strace", "-ff", "-y", "-qq", "-s0", "-o", str(strace), "-e", "trace=%file,%desc", "-e", "signal=none")
    servers = Servers(tmp_path, 1, trace)
    # Without builds, which run other programs, and what the preload does itself for want of links.
    chosen = [scenario for scenario in SCENARIOS if scenario.command[0] != "build" and not scenario.no_links]
    trials = [Trial(scenario, servers) for scenario in chosen]
    servers.close()
    lines = [line for file in tmp_path.glob("trace.*") for line in _placed(file.read_text().splitlines())]
    for trial in trials:
        counted = ["open" if call.name == "create" else call.name for call in trial.calls if call.name != "fsync"]
        seen = [name for line in lines if (name := _counted(line, str(trial.folder)))]
        assert counted == seen, trial.scenario


def append(payload: Path) -> None:
    """Append a signature, as for kernel modules."""
    with payload.open("ab") as file:
        file.write(b"signature~Module signature appended~\n")


def _placed(lines: Iterable[str]) -> Iterator[str]:
    """One process's calls; `mkdir`, the one that names no folder that its path begins at, with a whole path."""
    folder = ""
    for line in lines:
        if there := re.match(r'chdir\("([^"]*)"', line):
            folder = there[1]
        yield re.sub(r'^mkdir\("(?!/)', f'mkdir("{folder}/', line)


_LINE = re.compile(r'(\w+)\((?:(?:AT_FDCWD|\d+)<([^>]*)>)?(?:, )?(?:"([^"]*)")?')


def _counted(line: str, folder: str) -> str:
    """inject.c's name for a system call in strace's words; empty if it is none that counts."""
    match = _LINE.match(line)
    assert match, line
    name, base, path = match.groups(default="")
    place = path if path.startswith("/") else base
    if not f"{place}/".startswith(f"{folder}/") or name in HARMLESS or (name == "fcntl" and "F_SETLK" not in line):
        return ""
    return NAMES[name]


@pytest.mark.parametrize("since", [None, append, sign], ids=["as it was", "appended to since", "signed since"])
def test_a_process_of_its_own(tmp_path: Path, strace: Path, since: Callable[[Path], None] | None) -> None:
    """The same as elsewhere by fork: killed at its last rename, the older payload and its manifest are there.

    Also if that happens twice, and if somebody has signed the payload, so that no manifest has its digest.
    """
    older_output(tmp_path)
    if since:
        since(tmp_path / "out.livepatch")
    before = (tmp_path / "out.livepatch").read_bytes()
    killed = ["strace", "-f", "-qq", "-o", strace, "-e", "trace=rename", "-e", "inject=rename:signal=KILL:when=2"]
    command = ["lpmangle", "-o", "out.livepatch", NEW]
    for _ in range(2):
        run([*map(str, killed), *command], tmp_path, code=-9)
        assert (tmp_path / "out.livepatch").read_bytes() == before
        for words in (["verify"], ["restore", "-o", "back"]):
            run(["lpmangle", *words, "out.livepatch"], tmp_path)
    shutil.copy(tmp_path / "out.livepatch", tmp_path / "copy")
    run(command, tmp_path)
    assert not list(tmp_path.glob(".lpmangle-old.*"))
    run(["lpmangle", "verify", "out.livepatch"], tmp_path)
