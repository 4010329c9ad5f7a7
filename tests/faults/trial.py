"""A scenario with faults: afterwards everything must be old or new, and the next run must repair the rest.

`Trial` runs a scenario once without a fault, then with one fault at one call, as often as necessary. `out_of_order`
says what a loss of power could destroy.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from faults.harness import KILL, Call, Fault, Run, Scenario, Servers, State, look
from lpmangle.errors import EXIT_FILES, EXIT_REFUSED

# Files that a killed process may leave, and that need not be removed.
_TEMPORARY = re.compile(r"(.*/)?\.lpmangle-[0-9a-f]{16}\.tmp")
# SQLite's, of a writer that had not yet changed the catalog.
_JOURNAL = re.compile(r".*\.db-journal")
# The manifest of the old payload; the next run that writes these files removes it.
_KEPT = re.compile(r"(.*/)?\.lpmangle-old\..*")


class Trial:
    """A scenario that has run without a fault, and now runs with one."""

    def __init__(self, scenario: Scenario, servers: Servers) -> None:
        self.scenario = scenario
        self.servers = servers
        self.template = servers.folder_for_a_run()
        self.template.mkdir()
        scenario.prepare(self.template)
        self.before = _readable(look(self.template))
        self.folder = folder = self._copy(self.template)
        run = servers.run(folder, scenario)
        assert run.status == 0, f"exit code {run.status}: {run.err}"
        self.out, self.calls, self.after = run.out, run.calls, _readable(run.state)
        assert self.after != self.before
        self._sound: dict[int, bool] = {}
        self._lock = threading.Lock()
        shutil.rmtree(folder)

    def work(self, faults: Sequence[Fault], *, complete: bool) -> list[tuple[int, Fault]]:
        """All that can go wrong: the number of a call, and what happens there."""
        return [
            (number, fault)
            for fault in faults
            for number, call in enumerate(self.calls, 1)
            if (fault.suits if complete else fault.is_usual)(call.name)
        ]

    def disturb(self, number: int, fault: Fault) -> str:
        """What is wrong after a run with `fault` at call `number`; empty if all is well."""
        folder = self._copy(self.template)
        run = self.servers.run(folder, self.scenario, number, fault)
        call = self.calls[number - 1]
        problems = [*self._end(run, fault, call), *self._left(folder, run, call), *self._afterwards(folder, run.state)]
        if not problems:
            shutil.rmtree(folder)
            return ""
        return f"{fault.name} at {number}, {call}: exit code {run.status}: {'; '.join(problems)}\n{run.err}"

    def _copy(self, folder: Path) -> Path:
        copies: dict[int, str] = {}

        def copy(file: str, place: str) -> None:
            if (first := copies.setdefault(os.lstat(file).st_ino, place)) != place:
                os.link(first, place)
            else:
                shutil.copy2(file, place)

        return Path(shutil.copytree(folder, self.servers.folder_for_a_run(), symlinks=True, copy_function=copy))

    def _run(self, folder: Path, *command: str) -> Run:
        """Another command there, undisturbed."""
        return self.servers.run(folder, replace(self.scenario, command=command))

    def _end(self, run: Run, fault: Fault, call: Call) -> Iterator[str]:
        """Exit code and words."""
        if fault is KILL:
            if run.status != -signal.SIGKILL:
                yield "was not killed"
        elif run.status == 0:
            if run.out != self.out:
                yield f"succeeded, but said {run.out!r}"
        elif run.status != EXIT_FILES and not (
            # For SQLite, a page that cannot be read is a damaged one.
            run.status == EXIT_REFUSED
            and call.name == "read"
            and (call.paths[0].endswith(".db") or _TEMPORARY.fullmatch(call.paths[0]))
        ):
            yield "is no documented end"
        elif not re.match(r"lpmangle: [^:]+: [^:]", run.err) or "Traceback" in run.err:
            yield "says not what is wrong with which file"

    def _left(self, folder: Path, run: Run, call: Call) -> Iterator[str]:
        """The files: all new after success, all old after an error; after a kill each old or new."""
        state = self._settled(folder, run.state)
        if run.status > 0 and (left := [name for name in state if _TEMPORARY.fullmatch(name)]):
            yield f"left behind: {left}"
        state = _without(state, _TEMPORARY)
        if run.status <= 0:
            state = _without(state, _KEPT)
        if run.status < 0:
            state = _without(state, _JOURNAL)
        if run.status == 0:
            yield from _differences(state, self.after, "succeeded")
            return
        grouped = re.compile("|".join(re.escape(name) for group in self.scenario.groups for name in group))
        yield from _differences(_without(state, grouped), _without(self.before, grouped), "left")
        undone = 0
        for payload, *others in self.scenario.groups:
            is_old, is_new = (
                {name: state.get(name) == wanted.get(name) for name in (payload, *others)}
                for wanted in (self.before, self.after)
            )
            undone += all(is_old.values())
            if run.status > 0:
                if not all(is_old.values()) and not all(is_new.values()):
                    yield f"half done: {payload}"
                continue
            yield from (f"torn: {name}" for name in is_old if not is_old[name] and not is_new[name])
            # Whether an old payload leads to its manifest still is for `_afterwards` to see.
            if is_new[payload] and not is_old[payload] and not all(is_new.values()):
                yield f"is there before the rest: {payload}"
        if run.status > 0 and not undone and call.name != "lock":  # a lock that could not be let go
            yield "an error, but all is done"

    def _settled(self, folder: Path, state: State) -> State:
        """As the next reader finds it: SQLite undoes what a writer did not end. A new catalog without a manifest counts
        as none: removing it could cost what another process is adding."""
        catalogs = [name for name in state if name.endswith(".db")]
        if not catalogs:
            return state
        copy = self._copy(folder)
        new_and_empty = set()
        for name in catalogs:
            database = sqlite3.connect(copy / name)
            (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if name not in self.before and (
                not tables or database.execute("SELECT count(*) FROM manifest").fetchone() == (0,)
            ):
                new_and_empty.add(name)
            database.close()
        state = _readable(look(copy))
        shutil.rmtree(copy)
        return {name: content for name, content in state.items() if name not in new_and_empty}

    def _afterwards(self, folder: Path, state: State) -> Iterator[str]:
        """What the next commands make of it; the same files once."""
        key = hash(frozenset((_TEMPORARY.sub("temporary", name), content) for name, content in state.items()))
        with self._lock:
            known = self._sound.get(key)
        if known is None:
            problems = list(self._later(folder))
            yield from problems
            with self._lock:
                self._sound[key] = not problems
        elif not known:
            yield "the same files as after another fault, and they are no good"

    def _later(self, folder: Path) -> Iterator[str]:
        for payload, names in self.scenario.originals.items():
            path, originals = folder / payload, [(self.template / name).read_bytes() for name in names]
            if path.exists() and path.read_bytes() not in originals:
                copy = self._copy(folder)
                back = self._run(copy, "restore", payload, "-o", "back")
                if back.status or (copy / "back").read_bytes() not in originals:
                    yield f"{payload} cannot be restored: {back.err}"
                shutil.rmtree(copy)
        for reader in self.scenario.readers:
            copy = self._copy(folder)
            if (read := self._run(copy, *reader)).status:
                yield f"{reader}: exit code {read.status}: {read.out}{read.err}"
            shutil.rmtree(copy)
        again = self._run(folder, *self.scenario.command)
        if again.status:
            yield f"again: exit code {again.status}: {again.err}"
        yield from _differences(_readable(_without(_without(again.state, _TEMPORARY), _KEPT)), self.after, "again")


def _readable(state: State) -> State:
    """Catalogs as what they hold: what was added and removed again leaves traces in the file."""
    return {name: _dump(content) if name.endswith(".db") and content else content for name, content in state.items()}


def _dump(catalog: tuple[bytes, int]) -> tuple[bytes, int]:
    content, mode = catalog
    database = sqlite3.connect(":memory:")
    database.deserialize(content)
    dump = "\n".join(database.iterdump()).encode()
    database.close()
    return dump, mode


def _without(state: State, names: re.Pattern[str]) -> State:
    return {name: content for name, content in state.items() if not names.fullmatch(name)}


def _differences(state: State, wanted: State, when: str) -> Iterator[str]:
    for name in sorted(state.keys() | wanted.keys()):
        if state.get(name) != wanted.get(name):
            is_there = "differs" if name in state and name in wanted else "is there" if name in state else "is gone"
            yield f"{when}: {name} {is_there}"


def out_of_order(calls: list[Call], scenario: Scenario) -> Iterator[str]:
    """What a loss of power could part, by the order of `calls`: content that a name leads to before it is on disk, a
    payload before what belongs to it, and what is never on disk."""
    dirty: set[str] = set()
    renamed: set[str] = set()
    belongings = {payload: set(others) for payload, *others in scenario.groups}
    for call in calls:
        path = call.paths[-1]
        if call.name in ("write", "chmod", "chown"):
            dirty.add(path)
        elif call.name == "fsync":
            dirty.discard(path)
            renamed -= {name for name in renamed if os.path.dirname(name) == path.removeprefix(".")}
        elif call.name == "rename":
            if call.paths[0] in dirty:
                yield f"{path} is there before its content"
            if late := belongings.get(path, set()) & renamed:
                yield f"{path} is there before {late}"
            renamed.add(path)
    yield from (f"{name} is never on disk" for name in renamed)
