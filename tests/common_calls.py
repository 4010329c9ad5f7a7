"""What tests of the calls that are read without click share: what these do, beside what click would have done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from commands import EXAMPLES, lpmangle

from lpmangle.cli import group, run
from lpmangle.errors import LpmangleError


class Outcome(NamedTuple):
    """What a call did; `status` is None if it raised an LpmangleError, which `run` turns into words."""

    status: int | None
    out: str
    err: str
    files: dict[str, bytes]


def make_place(folder: Path) -> Path:
    """A folder with a payload, its manifest, and a catalog with it."""
    (folder / "folder").mkdir()
    shutil.copy(EXAMPLES / "fbab204.livepatch", folder)
    lpmangle("fbab204.livepatch", cwd=folder)
    lpmangle("catalog", "add", "c.db", ".", cwd=folder)
    return folder


def both_ways(
    lines: Iterable[list[str]],
    read: Callable[[list[str], Iterable[str]], object],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[tuple[list[str], Outcome, Outcome]]:
    """The command lines that `read` understands, what they do in `place`, and what they do there with click."""
    environment = {name: value for name, value in os.environ.items() if "LPMANGLE_" not in name}
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.chdir(place)
    for words in lines:
        if read(words, environment) is not None:
            yield words, _outcome(run, words, place, capfd), _outcome(group.run, words, place, capfd)


def _outcome(
    act: Callable[[list[str]], int], words: list[str], place: Path, capfd: pytest.CaptureFixture[str]
) -> Outcome:
    capfd.readouterr()
    status = None
    with suppress(LpmangleError):
        status = act(words)
    files = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}
    return Outcome(status, *capfd.readouterr(), files)
