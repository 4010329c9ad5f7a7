"""What all tests share."""

from pathlib import Path

import pytest
from corpus import Item, cached_corpus


@pytest.fixture(scope="session")
def corpus() -> dict[str, Item]:
    """All payloads that tests/corpus.py builds, by name."""
    return cached_corpus(Path(__file__).parent.parent / ".cache")
