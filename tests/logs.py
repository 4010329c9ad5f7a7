"""Logs through retrace, for tests."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from commands import run_in_bytes
from manifests import write

from lpmangle.store.open import open_sources
from lpmangle.trace.lookup import Lookup
from lpmangle.trace.retrace import Retracer

ID = hashlib.sha1(b"p").hexdigest()  # of the payload `p`, as manifests.plain makes it
FPU = "x86_emulate.c#_get_fpu"
COMMAND = [sys.executable, "-m", "lpmangle", "retrace"]


def retracer(tmp_path: Path, *manifests: dict[str, Any], **options: Any) -> Retracer:
    return Retracer(Lookup(open_sources([str(write(tmp_path / "m", *manifests))])), **options)


def through(chunks: Iterable[bytes], made: Retracer) -> bytes:
    made.begin()
    return b"".join([piece for chunk in chunks for piece in made.feed(chunk)] + made.end())


def run(*args: str | Path, text: bytes = b"", code: int = 0) -> subprocess.CompletedProcess[bytes]:
    environment = {k: v for k, v in os.environ.items() if k not in ("LPMANGLE_MANIFESTS", "DEBUGINFOD_URLS")}
    done = run_in_bytes(["retrace", *map(str, args)], env=environment, stdin=text)
    assert b"Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stderr
    return done
