"""Time and memory of whole processes. The contestants take turns, so that a noisy machine is fair to all of them."""

import hashlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

CPU_SECONDS = 600
SPAWN = Path(__file__).with_name("spawn.py")


@dataclass
class Contestant:
    """A command, run in a folder of its own, and what was measured. `failure` says why it has no figures.

    `units` is how much of the same it has to do.
    """

    name: str
    command: Sequence[str | Path]
    seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    failure: str = ""
    output: str = ""
    units: int = 1

    def check(self, folder: Path, expected: str) -> None:
        """Note whether what it prints is what it should be, by SHA-256."""
        (folder / self.folder).mkdir()
        done = subprocess.run(self.command, cwd=folder / self.folder, capture_output=True, check=True)
        self.output = "right" if hashlib.sha256(done.stdout).hexdigest() == expected else "wrong"

    @property
    def folder(self) -> str:
        return re.sub(r"\W+", "-", self.name)

    @property
    def time(self) -> float:
        return median(self.seconds)

    @property
    def memory(self) -> float:
        return median(self.peak_bytes)


class Group(NamedTuple):
    """Lines of the table whose ratios are to the first of them."""

    title: str
    rounds: int
    rows: list[Contestant]


def race(contestants: Sequence[Contestant], folder: Path, rounds: int, warm_up: bool) -> None:
    """Run all contestants once a round, each time another one first. A round that warms up is not counted.

    Exits if the first one, to which the others are compared, fails.
    """
    for number in range(-warm_up, rounds):
        first = number % len(contestants)
        for contestant in (*contestants[first:], *contestants[:first]):
            if not contestant.failure:
                _run(contestant, folder / contestant.folder, count=number >= 0)
        if contestants[0].failure:
            sys.exit(f"{contestants[0].name}: {contestants[0].failure}")


def _run(contestant: Contestant, folder: Path, count: bool) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    command = [sys.executable, "-I", "-S", SPAWN, str(CPU_SECONDS), *contestant.command]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    status, seconds, peak = done.stdout.split()
    if int(status) in (-signal.SIGXCPU, 128 + signal.SIGXCPU):  # the latter by way of a shell
        contestant.failure = f"stopped after {CPU_SECONDS} s"
    elif int(status):
        contestant.failure = f"failed: {(done.stderr.splitlines() or [status])[0]}"
    if count:
        contestant.seconds.append(float(seconds))
        contestant.peak_bytes.append(int(peak))


def size(count: float) -> str:
    return f"{count / 2**20:.0f} MiB" if count >= 1 << 20 else f"{count / 1024:.0f} KiB"
