"""Runs lpmangle again and again without starting Python again: each time a fork of a process with all modules loaded.

One JSON object a line in, `commands.Forks` writes them; the exit code, or minus a signal, out.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable
from pkgutil import walk_packages
from typing import Any, NoReturn

import lpmangle
from lpmangle.cli import main


def load() -> None:
    """Load everything that lpmangle may import, so that a run uses only its own files."""
    for module in walk_packages(lpmangle.__path__, "lpmangle."):
        importlib.import_module(module.name)
    importlib.import_module("lief")
    sqlite3.connect(":memory:").close()


def serve(run: Callable[[dict[str, Any]], None]) -> None:
    """Call `run`, which is to end with `main`, in a fork for each line of stdin."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _run(run, json.loads(line))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps(status), flush=True)


def _run(run: Callable[[dict[str, Any]], None], job: dict[str, Any]) -> NoReturn:
    """In the child, which ends here."""
    code = 70  # nothing of ours
    try:
        for number, path in enumerate((job["in"], job["out"], job["err"])):
            descriptor = os.open(path, os.O_RDWR if number else os.O_RDONLY)
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(job["folder"])
        signal.alarm(job["seconds"])
        sys.argv = ["lpmangle", *job["command"]]
        run(job)
    except SystemExit as end:
        code = int(end.code or 0)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _as_users_do(job: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(job["environment"])
    main()


if __name__ == "__main__":
    load()
    serve(_as_users_do)
