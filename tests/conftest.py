"""What all tests share."""

import os
import signal
from pathlib import Path

import pytest
from corpus import Item, cached_corpus

# The makes that tests call are not to be sub-makes of `make test`; Python is to buffer its output as it does for users.
for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHONUNBUFFERED"):
    os.environ.pop(name, None)
# Nor does what they start ignore what nohup has made us ignore.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def corpus() -> dict[str, Item]:
    """All payloads that tests/corpus.py builds, by name."""
    return cached_corpus(Path(__file__).parent.parent / ".cache")
