"""What all tests share."""

import os
import signal
from pathlib import Path

import pytest
from corpus import Item, cached_corpus

# The makes that tests call are not to be sub-makes of `make test`; Python is to buffer its output as it does for users.
for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHONUNBUFFERED"):
    os.environ.pop(name, None)

# Ignored by Python itself, and given back by whatever starts processes.
PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_ignored() -> None:
    """What tests start has all signals, whatever was ignored when we were started (by nohup, or by a shell's `&`).

    A handler that does nothing is as good as ignoring for us, and no process that we start inherits it.
    """
    for number in signal.valid_signals() - {*PYTHON_IGNORES}:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda number, frame: None)


@pytest.fixture(scope="session")
def corpus() -> dict[str, Item]:
    """All payloads that tests/corpus.py builds, by name."""
    return cached_corpus(Path(__file__).parent.parent / ".cache")
