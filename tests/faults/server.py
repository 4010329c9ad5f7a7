"""Runs lpmangle again and again without starting Python again: forks for each run, with inject.c preloaded.

One JSON object in for each run (`harness.Server.run`), one out. All modules are imported before the first fork, so that
a run's own files are the only ones it touches.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sqlite3
import sys
import traceback
from typing import Any

from lpmangle.cli import main
from lpmangle.cli.commands import COMMANDS

# A run that takes as long hangs.
SECONDS = 60


def _serve() -> None:
    os.environ.pop("LD_PRELOAD")  # what lpmangle runs is not to be disturbed
    for name in COMMANDS:
        importlib.import_module(f"lpmangle.cli.{name}")
    for name in (
        "cli.mangle_many",
        "manifest.embed",
        "manifest.read",
        "store.local",
        "store.catalog",
        "verify.payload",
    ):
        importlib.import_module(f"lpmangle.{name}")
    importlib.import_module("lief")
    sqlite3.connect(":memory:").close()
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(job)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps(status), flush=True)


def _run(job: dict[str, Any]) -> None:
    """In the child, which ends here."""
    code = 70  # nothing of ours
    try:
        for number, path in enumerate((os.devnull, job["out"], job["err"])):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(job["folder"])
        signal.alarm(SECONDS)
        sys.argv = ["lpmangle", *job["command"]]
        folder, log = (os.fsencode(job[word]) for word in ("folder", "log"))
        ctypes.CDLL(None).faults_arm(folder, log, ctypes.c_long(job["number"]), job["fault"], job["no_links"])
        main()
    except SystemExit as end:
        code = int(end.code or 0)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


_serve()
