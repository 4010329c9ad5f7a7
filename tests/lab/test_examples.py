"""The committed example payloads are what their sources give."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lab.scenario import ROOT

NAMES = ("617712b.livepatch", "fbab204.livepatch", "stacked/8d4a1c7.livepatch")


def gcc() -> tuple[str, str]:
    """Machine and version; other versions may give other code."""
    try:
        words = [
            subprocess.run(["gcc", option], capture_output=True, text=True).stdout.strip()
            for option in ("-dumpmachine", "-dumpversion")
        ]
    except OSError:
        words = ["", ""]
    return words[0], words[1]


@pytest.mark.skipif(gcc() != ("x86_64-linux-gnu", "12"), reason="the committed examples are those of gcc 12 for x86_64")
def test_rebuild(tmp_path: Path) -> None:
    """Byte for byte, against the Xen that they name: no matter which one the lab has."""
    subprocess.run([sys.executable, ROOT / "examples" / "rebuild", "--output", tmp_path], check=True)
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == (ROOT / "examples" / name).read_bytes(), name
