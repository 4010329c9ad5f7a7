"""Runs lpmangle with a fault at one call on files: the faults, the processes that run it, what they leave."""

from __future__ import annotations

import errno
import itertools
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from builds import environment

HERE = Path(__file__).parent
# For a file its content and mode, for a symbolic link its target and 0, for a folder None.
State = dict[str, tuple[bytes, int] | None]


@dataclass(frozen=True)
class Fault:
    """What happens instead of a call; `number` is inject.c's word for it."""

    name: str
    number: int

    def suits(self, call: str) -> bool:
        """Whether it can happen at that call."""
        if self is SHORT:
            return call in ("read", "write")
        if self is FULL:  # from here on, so only calls that need space differ
            return call in _NEED_SPACE
        # A process that was killed before it looked left what it leaves when it has looked.
        return self is not KILL or call not in ("stat", "read", "open")

    def is_usual(self, call: str) -> bool:
        """Whether Linux is known to do that: the choice of `make test`; `make faults` tries what it may do some day."""
        calls = {
            ENOSPC: ("create", "write", "fsync", "link", "rename", "close"),
            EACCES: ("open", "create", "link", "rename", "unlink", "chmod", "chown", "mkdir"),
            EINTR: ("open", "create", "read", "write", "lock", "close"),
        }.get(self)
        return self.suits(call) and call != "stat" and (calls is None or call in calls)


# A run that takes this long hangs.
SECONDS = 60
_NEED_SPACE = ("create", "write", "fsync", "link", "mkdir", "grow")
KILL = Fault("kill", -1)
SHORT = Fault("short", -2)
FULL = Fault("disk full", -3)
ENOSPC, EIO, EACCES, EINTR = (Fault(n, getattr(errno, n)) for n in ("ENOSPC", "EIO", "EACCES", "EINTR"))
FAULTS = (KILL, FULL, ENOSPC, EIO, EACCES, EINTR, SHORT)


@dataclass(frozen=True)
class Call:
    """A line of the log."""

    name: str
    paths: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((self.name, *self.paths))


@dataclass(frozen=True)
class Scenario:
    """`command` is run in a folder that `prepare` fills."""

    name: str
    prepare: Callable[[Path], None]
    command: tuple[str, ...]
    # What the command should write, in groups that belong together: each group is completely old or completely new.
    groups: tuple[tuple[str, ...], ...]
    # Payloads whose manifest `restore` must always find, and the results that are allowed.
    originals: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # Commands that must always succeed afterwards.
    readers: tuple[tuple[str, ...], ...] = ()
    # On a file system without hard links.
    no_links: bool = False

    def __str__(self) -> str:
        return self.name


@dataclass
class Run:
    """A run that has ended. `status` is its exit code, or minus a signal."""

    status: int
    out: str
    err: str
    calls: list[Call]
    state: State


class Servers:
    """A process of server.py for each parallel run; each call of `run` uses one that is free."""

    def __init__(self, folder: Path, count: int, wrapper: tuple[str, ...] = ()) -> None:
        """`wrapper` is a command that runs them."""
        library = folder / "inject.so"
        gcc = ("gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
        subprocess.run([*gcc, "-o", library, HERE / "inject.c"], check=True)
        self.folder = folder
        self.count = count
        self._numbers = itertools.count()
        self._free: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        self._all = [
            subprocess.Popen(
                [*wrapper, sys.executable, HERE / "server.py"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment(LD_PRELOAD=str(library), PYTHONPATH=str(HERE.parent)),
            )
            for _ in range(count)
        ]
        for server in self._all:
            self._free.put(server)

    def close(self) -> None:
        for server in self._all:
            server.communicate()

    def folder_for_a_run(self) -> Path:
        return self.folder / f"run{next(self._numbers)}"

    def run(self, folder: Path, scenario: Scenario, number: int = 0, fault: Fault = KILL) -> Run:
        """Run lpmangle as `scenario` says in `folder`, with `fault` at call `number`, if that is not 0."""
        out, err, log = (folder.with_suffix(ending) for ending in (".out", ".err", ".log"))
        log.unlink(missing_ok=True)
        for path in (out, err):
            path.write_bytes(b"")
        job = {
            "folder": str(folder),
            "seconds": SECONDS,
            "in": os.devnull,
            "command": scenario.command,
            "number": number,
            "fault": fault.number,
            "no_links": scenario.no_links,
            "out": str(out),
            "err": str(err),
            "log": str(log),
        }
        server = self._free.get()
        try:
            assert server.stdin
            assert server.stdout
            print(json.dumps(job), file=server.stdin, flush=True)
            status = json.loads(server.stdout.readline())
        finally:
            self._free.put(server)
        return Run(status, out.read_text(), err.read_text(), list(_calls(log, folder)), look(folder))


def _calls(log: Path, folder: Path) -> Iterator[Call]:
    for line in log.read_text().splitlines():
        _, name, *paths = line.split("\t")
        yield Call(name, tuple(os.path.relpath(path.removesuffix(" (deleted)"), folder) for path in paths))


def look(folder: Path) -> State:
    """All that is in a folder."""
    state: State = {}
    for place, folders, names in os.walk(folder):
        for name in folders:
            state[os.path.relpath(os.path.join(place, name), folder)] = None
        for name in names:
            path = os.path.join(place, name)
            if os.path.islink(path):
                state[os.path.relpath(path, folder)] = os.readlink(path).encode(), 0
            else:
                content = Path(path).read_bytes()
                state[os.path.relpath(path, folder)] = content, stat.S_IMODE(os.stat(path).st_mode)
    return state
