"""The forks of forks.py with inject.c preloaded, which makes a call on files go wrong (`harness.Servers`)."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from forks import load, serve

from lpmangle.cli import main


def _disturbed(job: dict[str, Any]) -> None:
    folder, log = (os.fsencode(job[word]) for word in ("folder", "log"))
    ctypes.CDLL(None).faults_arm(folder, log, ctypes.c_long(job["number"]), job["fault"], job["no_links"])
    main()


os.environ.pop("LD_PRELOAD")  # programs that lpmangle runs are not disturbed
load()
serve(_disturbed)
