"""lpmangle as its users call it, and the files of its documentation.

A run is a fork of a process that has loaded all modules: this takes a tenth of the time of starting Python, and there
are thousands of runs. Tests that depend on the start of the process, on signals, pipes or terminals start it
themselves.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
# A run that takes this long hangs.
SECONDS = 600
# Variables that Python or the C library reads at the start: if one differs, a run is a new process.
_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "GLIBC_")


def lpmangle(
    *args: str | Path, cwd: Path | None = None, code: int = 0, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command; its exit code must be `code`, and no traceback may show."""
    done = run_lpmangle([*map(str, args)], cwd=cwd, stdin=stdin)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stdout + done.stderr
    return done


def loaded(words: list[str], folder: Path) -> set[str]:
    """The modules that a call loads, in a new process."""
    code = f"""\
import sys
before = set(sys.modules)
sys.argv = {["lpmangle", *words]!r}
from lpmangle.__main__ import main
try:
    main()
finally:
    print()  # the call may have printed half a line
    print(*(set(sys.modules) - before))
"""
    environment = {name: value for name, value in os.environ.items() if "LPMANGLE_" not in name}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def run_lpmangle(
    words: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """`lpmangle WORDS`, with nothing, or the text `stdin`, to read."""
    done = run_in_bytes(words, cwd=cwd, env=env, stdin=None if stdin is None else stdin.encode())
    out, err = (data.decode(errors="replace") for data in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def run_in_bytes(
    words: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """The same with bytes."""
    environment, forks = dict(os.environ if env is None else env), _forks()
    if _at_start(environment) == forks.at_start:
        return forks.run(words, str(cwd or os.getcwd()), environment, stdin)
    command = [sys.executable, "-m", "lpmangle", *words]
    done = subprocess.run(command, cwd=cwd, env=environment, input=stdin or b"", capture_output=True)
    return subprocess.CompletedProcess(["lpmangle", *words], done.returncode, done.stdout, done.stderr)


def _at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_AT_START)}


class Forks:
    """A process of forks.py; one run at a time."""

    def __init__(self) -> None:
        self.at_start = _at_start(os.environ)
        self._server = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("forks.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        self._server.communicate()

    def run(
        self, words: Sequence[str], folder: str, environment: dict[str, str], stdin: bytes | None
    ) -> subprocess.CompletedProcess[bytes]:
        with tempfile.TemporaryDirectory(prefix="lpmangle-run.") as name:
            files = {what: Path(name, what) for what in ("in", "out", "err")}
            for path in files.values():
                path.write_bytes(stdin or b"" if path.name == "in" else b"")
            job: dict[str, object] = {what: str(path) for what, path in files.items()}
            if stdin is None:
                job["in"] = os.devnull
            job |= {"folder": folder, "command": words, "environment": environment, "seconds": SECONDS}
            assert self._server.stdin
            assert self._server.stdout
            print(json.dumps(job), file=self._server.stdin, flush=True)
            status = json.loads(self._server.stdout.readline())
            out, err = (files[what].read_bytes() for what in ("out", "err"))
        return subprocess.CompletedProcess(["lpmangle", *words], status, out, err)


@cache
def _forks() -> Forks:
    forks = Forks()
    atexit.register(forks.close)
    return forks
