"""lpmangle build --json: the report of `lpmangle --json`, and nothing else on stdout."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from builds import ROOT, run

OLD, NEW = (ROOT / "examples" / f"{name}.livepatch" for name in ("617712b", "fbab204"))
MAKE = f"echo building; echo more >&2; cp {OLD} a.livepatch; cp {NEW} b.livepatch"


def report(folder: Path, *words: str, make: str = MAKE, code: int = 0) -> tuple[list[dict[str, Any]], str]:
    """The payloads in the report, and what is on stderr."""
    command = ["lpmangle", "build", "--json", "--result=*.livepatch", *words, "--", "bash", "-c", make]
    done = run(command, folder, code=code)
    found = json.loads(done.stdout)
    assert list(found) == ["payloads"]
    return found["payloads"], done.stderr


def test_report(tmp_path: Path) -> None:
    """As in `lpmangle --json`, with the output of the command on stderr."""
    payloads, stderr = report(tmp_path)
    assert stderr == "building\nmore\n"
    for payload in (OLD, NEW):
        shutil.copy(payload, tmp_path / f"{'ab'[payload is NEW]}.livepatch")
    expected = json.loads(run(["lpmangle", "--json", "a.livepatch", "b.livepatch"], tmp_path).stdout)["payloads"]
    assert payloads == [entry | {"check": None} for entry in expected]
    assert [entry["status"] for entry in payloads] == ["mangled", "mangled"]


def test_steps_print_to_stderr(tmp_path: Path) -> None:
    payloads, stderr = report(tmp_path, "--before", "echo before", "--after", "sh -c 'echo after'")
    assert [line.split()[0] for line in stderr.splitlines()] == ["building", "more", *["before", "after"] * 2]
    assert [entry["status"] for entry in payloads] == ["mangled", "mangled"]


def test_check(tmp_path: Path) -> None:
    """One is accepted, the other one has all its findings in the report; what was not checked is null."""
    (tmp_path / "loaded").mkdir()
    shutil.copy(OLD, tmp_path / "loaded")
    options = ["--check", "--loaded", "loaded/617712b.livepatch"]
    (refused, taken), stderr = report(tmp_path, *options, code=1)
    assert (refused["status"], refused["exit_code"], refused["output"]) == ("failed", 1, None)
    assert refused["error"].startswith("check: refused")
    assert refused["error"] in stderr
    assert (refused["check"]["verdict"], taken["check"]["verdict"]) == ("refused", "accepted")
    assert any(finding["reported"] for finding in refused["check"]["findings"])
    (broken, _), _ = report(tmp_path, *options, make=f"{MAKE}; echo no payload >a.livepatch", code=3)
    assert (broken["error"], broken["check"]) == ("not an ELF file", None)


@pytest.mark.parametrize(("make", "code"), [("exit 7", 7), ("true", 3), ("echo x >x.livepatch; exit 1", 1)])
def test_a_build_that_fails(tmp_path: Path, make: str, code: int) -> None:
    """Nothing was mangled, and the report says so."""
    payloads, _ = report(tmp_path, make=make, code=code)
    assert payloads == []


def test_usage_errors_and_signals(tmp_path: Path) -> None:
    """Then there is no report: nothing was started, or nobody is waiting for it."""
    done = run(["lpmangle", "build", "--json", "--", "true"], tmp_path, code=2)
    assert done.stdout == ""
    command = ["lpmangle", "build", "--json", "--result=x", "--", "sh", "-c", "kill $$"]
    assert run(command, tmp_path, code=-signal.SIGTERM).stdout == ""
