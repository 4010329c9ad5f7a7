"""Runs the readers again on what the fuzzer has found and on inputs written by hand, in little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .readers import READERS

CORPUS = Path(__file__).parent / "corpus"
MAX_BYTES = 1_500_000


@pytest.mark.parametrize("reader", READERS)
def test_replay(reader: str) -> None:
    command = [sys.executable, "-m", "fuzz", "--replay", "--", reader]
    done = subprocess.run(command, cwd=CORPUS.parent.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr


def test_corpus_is_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < MAX_BYTES
