"""The common call of query is read without click: then click would have done the same."""

import os
import random
from pathlib import Path

import pytest
from commands import loaded
from common_calls import Outcome, both_ways, make_place

from lpmangle.cli import common_query
from lpmangle.errors import EXIT_NO

SEED = int(os.environ.get("LPMANGLE_SEED", "21"))
LINES = 300
SYMBOLS = ("_get_fpu", "lp_*", "*", "no_such", "_get_fpu+0x3/0xd [fbab204]", "help", "query", "@list", "", "é", "a\tb")
SOURCES = (
    "fbab204.livepatch",
    "c.db",
    "folder",
    "missing",
    "",
    "-",
    "-x",
    "http://",
    "fbab204.livepatch.manifest.json",
)
OTHERS = (
    "-h", "--help", "--", "-", "-mfolder", "-m=folder", "--json=1", "--form", "--version", "-q", "--manifest", "-m",
    "--format=", "--format=JSON", "--manifest=",
)  # fmt: skip


def random_line(rng: random.Random) -> list[str]:
    """Words for `query`, most of which make sense."""
    parts = [[rng.choice(SYMBOLS[:6] if rng.random() < 0.9 else SYMBOLS)] for _ in range(rng.choice((1, 1, 1, 2, 0)))]
    for _ in range(rng.choice((1, 1, 1, 2, 0))):
        source = rng.choice(SOURCES[:2] if rng.random() < 0.6 else SOURCES)
        parts.append(rng.choice((["-m", source], ["--manifest", source], [f"--manifest={source}"])))
    if rng.random() < 0.4:
        form = rng.choice(("text", "json", "objcopy", "xml"))
        parts.append(rng.choice((["--json"], ["--format", form], [f"--format={form}"])))
    if rng.random() < 0.15:
        parts.append([rng.choice(OTHERS)])
    rng.shuffle(parts)
    return ["query", *(word for part in parts for word in part)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make_place(tmp_path)


def answer(outcome: Outcome) -> tuple[int, str, str]:
    """Errors have other words, or are raised."""
    if outcome.status in (0, EXIT_NO):
        return outcome.status, outcome.out, outcome.err
    return -1, outcome.out, ""


def test_click_would_have_answered_the_same(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """For random command lines: exit code and output."""
    print(f"LPMANGLE_SEED={SEED}")
    rng, read = random.Random(SEED), 0
    lines = (random_line(rng) for _ in range(LINES))
    for words, ours, clicks in both_ways(lines, common_query.read, place, monkeypatch, capfd):
        read += 1
        assert answer(ours) == answer(clicks), words
    assert read > LINES / 3


@pytest.mark.parametrize(
    ("words", "form"),
    [
        (["f", "-m", "c.db"], "text"),
        (["-m", "c.db", "f"], "text"),
        (["f", "--manifest=c.db", "--json"], "json"),
        (["--format", "objcopy", "f", "--manifest", "c.db"], "objcopy"),
        (["--json", "--format=text", "f", "-m", "c.db"], "json"),
    ],
    ids=str,
)
def test_is_read(words: list[str], form: str) -> None:
    assert common_query.read(["query", *words], ["PATH", "LPMANGLE_MANIFESTS"]) == (("f",), ("c.db",), form)


def test_settings_in_the_environment_are_for_click() -> None:
    for name in ("LPMANGLE_QUERY_FORMAT", "LPMANGLE_QUERY_JSON", "_LPMANGLE_COMPLETE"):
        assert common_query.read(["query", "f", "-m", "c.db"], [name]) is None


def test_loads_nothing_slow(place: Path) -> None:
    """Of a catalog, only what is needed to look a name up."""
    modules = loaded(["query", "_get_fpu", "-m", "c.db"], place)
    assert "lpmangle.store.catalog" in modules
    assert not modules & {
        "click",
        "lief",
        "urllib",
        "urllib.request",
        "lpmangle.store.catalog_writing",
        "lpmangle.jobs.mangle",
        "lpmangle.mangle",
        "difflib",
        "glob",
    }
