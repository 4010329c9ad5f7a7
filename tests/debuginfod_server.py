"""Debian's real debuginfod on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ID = "d967c17f6518371e26e591728fd30fa3f292977c"  # of examples/fbab204.livepatch


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(folder: Path, upstream: str = "", build_id: str = ID) -> Iterator[str]:
    """The URL of debuginfod, serving the payloads in a folder; it has answered for one of them."""
    port = free_port()
    command = ["debuginfod", "-F", "-p", str(port), "-d", str(folder / "index.sqlite"), str(folder / "payloads")]
    left_out = ("DEBUGINFOD_URLS", "DEBUGINFOD_CACHE_PATH", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment |= {"HOME": str(folder)} | ({"DEBUGINFOD_URLS": upstream} if upstream else {})
    with (
        open(folder / "log", "wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environment) as process,
    ):
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        try:
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    with urllib.request.urlopen(f"{url}/buildid/{build_id}/section/.debug_lpmangle", timeout=5):
                        break
                except OSError:
                    time.sleep(0.2)
            else:
                pytest.fail((folder / "log").read_text()[-3000:])
            yield url
        finally:
            process.kill()
