"""The common call of retrace is read without click: then click would have done the same."""

import os
import random
from pathlib import Path
from typing import Any

import pytest
from commands import loaded, lpmangle
from common_calls import both_ways, make_place

from lpmangle.cli import common_retrace
from lpmangle.cli.common_retrace import RetraceCall

SEED = int(os.environ.get("LPMANGLE_SEED", "22"))
LINES = 300
LOGS = ("log", "log", "second.log", "missing", "folder", "", "-", "help", "retrace", "a\tb")
SOURCES = ("fbab204.livepatch", "c.db", "folder", "missing", "", "-", "-x", "http://", "log")
OTHERS = (
    "-h", "--help", "--", "-", "-mfolder", "-m=folder", "--json=1", "--ann", "--version", "-q", "--manifest", "-m",
    "--output=", "-o", "-olog", "--debug-file", "--debug-file=", "-",
)  # fmt: skip


def random_line(rng: random.Random) -> list[str]:
    """Words for `retrace`, most of which make sense. It always has a log: nobody types one here."""
    parts = [[rng.choice(LOGS[:3] if rng.random() < 0.9 else LOGS)] for _ in range(rng.choice((1, 1, 1, 2)))]
    for _ in range(rng.choice((1, 1, 1, 2, 0))):
        source = rng.choice(SOURCES[:2] if rng.random() < 0.6 else SOURCES)
        parts.append(rng.choice((["-m", source], ["--manifest", source], [f"--manifest={source}"])))
    parts += [[flag] for flag in ("--annotate", "--source-lines", "--json") if rng.random() < 0.2]
    if rng.random() < 0.2:
        file = rng.choice(("fbab204.livepatch", "folder", "missing", ""))
        parts.append(rng.choice((["--debug-file", file], [f"--debug-file={file}"])))
    for _ in range(rng.choice((0, 0, 1, 2))):
        output = rng.choice(("out", "out2", "log", "c.db", "no/out", "-", ""))
        parts.append(rng.choice((["-o", output], ["--output", output], [f"--output={output}"])))
    if rng.random() < 0.15:
        parts.append([rng.choice(OTHERS)])
    rng.shuffle(parts)
    return ["retrace", *(word for part in parts for word in part)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_place(tmp_path)
    name = lpmangle("query", "_get_fpu", "-m", "c.db", "--format", "objcopy", cwd=tmp_path).stdout.split("=")[1]
    (tmp_path / "log").write_text(f"a line\nS {name}+0x3/0xd [fbab204]\nno newline")
    (tmp_path / "second.log").write_text(f"S f_{'0' * 40}+0x3/0xd\n")
    return tmp_path


def test_click_would_have_done_the_same(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """For random command lines: exit code, output, files."""
    print(f"LPMANGLE_SEED={SEED}")
    rng, read = random.Random(SEED), 0
    lines = (random_line(rng) for _ in range(LINES))
    for words, ours, clicks in both_ways(lines, common_retrace.read, place, monkeypatch, capfd):
        read += 1
        assert (ours.out, ours.files) == (clicks.out, clicks.files), words
        assert clicks.status is None or ours == clicks, words
    assert read > LINES / 3


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ([], {"words": ()}),
        (["-m", "c.db"], {}),
        (["a.log", "-m", "c.db", "b.log"], {"paths": ("a.log", "b.log")}),
        (["--manifest=c.db", "-m", "x", "--json"], {"words": ("c.db", "x"), "as_json": True}),
        (["-m", "c.db", "--annotate", "--source-lines"], {"annotate": True, "source_lines": True}),
        (["-m", "c.db", "--debug-file", "a", "--debug-file=b"], {"debug_files": ("a", "b")}),
        (["-m", "c.db", "-o", "a", "--output=b"], {"output": "b"}),
    ],
    ids=str,
)
def test_is_read(words: list[str], changes: dict[str, Any]) -> None:
    call = RetraceCall((), ("c.db",), False, False, (), None, False)._replace(**changes)
    assert common_retrace.read(["retrace", *words], ["PATH", "LPMANGLE_MANIFESTS"]) == call


def test_settings_in_the_environment_are_for_click() -> None:
    for name in ("LPMANGLE_RETRACE_ANNOTATE", "LPMANGLE_RETRACE_OUTPUT", "_LPMANGLE_COMPLETE"):
        assert common_retrace.read(["retrace", "-m", "c.db"], [name]) is None


def test_loads_nothing_slow(place: Path) -> None:
    modules = loaded(["retrace", "-m", "fbab204.livepatch", "log"], place)
    assert "lpmangle.trace.retrace" in modules
    assert not modules & {
        "click",
        "lief",
        "sqlite3",
        "urllib",
        "subprocess",
        "json",
        "difflib",
        "lpmangle.cli.log_records",
        "lpmangle.jobs.mangle",
        "lpmangle.trace.source_lines",
    }
