"""A fleet: uploads against many hosts with different payloads loaded, each payload read once.

Most of what decides about an upload is the same for every host. So each upload is simulated once for every *set of
loaded payloads that matter to it*: those with its name or its build-id, or with a symbol that it looks up.
"""

import json
import os
from typing import NamedTuple

from lpmangle.errors import PayloadError
from lpmangle.loader.findings import NOT_CHECKED, Finding
from lpmangle.loader.state import Allocator, Loaded, State
from lpmangle.loader.steps import actions
from lpmangle.loader.upload import NOT_ALL_CHECKED, Upload, Verdict, check_upload, perform


class Host(NamedTuple):
    """What one host has loaded and applied, in that order, as paths of payloads."""

    name: str
    paths: tuple[str, ...]


def read_hosts(text: str, folder: str) -> list[Host]:
    """The stacks in a stack file; paths are relative to `folder`. Raises PayloadError.

    As text: one payload per line, a blank line between stacks; a line `# NAME` names the stack, and a stack of only
    that line has nothing loaded. As JSON: a list of lists of paths, or an object of lists by name.
    """
    stacks = _from_json(text) if text.lstrip()[:1] in ("[", "{") else _from_text(text)
    if not stacks:
        raise PayloadError("lists no stack")
    return [
        Host(name or f"stack {number}", tuple(os.path.join(folder, path) for path in paths))
        for number, (name, paths) in enumerate(stacks, 1)
    ]


def _from_text(text: str) -> list[tuple[str, list[str]]]:
    stacks: list[tuple[str, list[str]]] = []
    name, paths = "", list[str]()
    for line in [*map(str.strip, text.splitlines()), ""]:
        if line.startswith("#"):
            name = name or line.lstrip("# ")
        elif line:
            paths.append(line)
        elif name or paths:
            stacks.append((name, paths))
            name, paths = "", []
    return stacks


def _from_json(text: str) -> list[tuple[str, list[str]]]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise PayloadError(f"is neither a list of payloads nor JSON: {error}") from None
    stacks = list(content.items()) if isinstance(content, dict) else [("", paths) for paths in content]
    for name, paths in stacks:
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise PayloadError(f"a stack is a list of paths, {name or 'one'} is not")
    return stacks


class Cell(NamedTuple):
    """What one host does with one upload: Xen's answer, and what could be done with it then."""

    status: str
    first: Finding | None
    attempt: str
    then: Finding | None
    complete: bool  # all could be checked that decides

    @property
    def words(self) -> str:
        """The status, and whether more would have to be known."""
        return self.status if self.first or self.complete else self.status + NOT_ALL_CHECKED

    @property
    def finding(self) -> Finding | None:
        """Why it is not accepted, or cannot be used; None if all is well."""
        return self.first or self.then

    @property
    def good(self) -> bool:
        return self.finding is None


class Row(NamedTuple):
    """A host, and one cell for each upload."""

    host: Host
    cells: list[Cell]


class Group(NamedTuple):
    """Hosts with the same payloads loaded, in the same order, and what each of them does with each upload."""

    hosts: list[Host]
    cells: list[Cell]


def equal_hosts(rows: list[Row]) -> list[Group]:
    """All hosts, equal ones in one group; groups and hosts are in the order of `rows`."""
    groups: dict[tuple[str, ...], Group] = {}
    for host, cells in rows:
        groups.setdefault(host.paths, Group([], cells)).hosts.append(host)
    return list(groups.values())


class Matrix:
    """Checks `uploads`, in their order, against one host after the other."""

    def __init__(self, uploads: list[Upload], state: State) -> None:
        self.state = state.copy()
        self.state.allocator = Allocator()
        self._uploads = uploads
        self._asked: list[frozenset[bytes]] = []
        self._build_ids: list[bytes] = []
        self._verdicts: dict[tuple[int, ...], Verdict] = {}
        self._matters: dict[tuple[int, int], bool] = {}
        self._kept: list[Loaded] = []  # an id() is unique only while its object lives
        for upload in uploads:
            alone = self.state.copy()
            alone.loaded, alone.applied, alone.asked = [], [], set()
            verdict = check_upload(upload, alone)
            self._asked.append(frozenset(alone.asked))
            self._build_ids.append(verdict.build_id)

    def check(self, stack: list[Loaded]) -> list[Cell]:
        """One cell for each upload; `stack` is loaded and applied, in that order."""
        state = self.state.copy()
        state.loaded, state.applied = list(stack), list(stack)
        return [self._check(number, state) for number in range(len(self._uploads))]

    def _check(self, number: int, state: State) -> Cell:
        relevant = [loaded for loaded in state.loaded if self._is_relevant(number, loaded)]
        key = (number, *map(id, relevant))
        verdict = self._verdicts.get(key)
        if verdict is None:
            alone = state.copy()
            alone.loaded, alone.applied = relevant, []
            verdict = self._verdicts[key] = check_upload(self._uploads[number], alone)
            self._kept += relevant
        if not verdict.loaded:
            return Cell(verdict.status, verdict.first, "", None, verdict.complete)
        state.loaded.append(verdict.loaded)
        attempt, then = actions.next_action(verdict.loaded, state)
        perform(attempt, then, verdict.loaded, state)
        fatal = next((finding for finding in then if finding.fatal), None)
        complete = not any(finding.severity == NOT_CHECKED for finding in (*verdict.findings, *then))
        return Cell(verdict.status, None, attempt, fatal, complete)

    def _is_relevant(self, number: int, loaded: Loaded) -> bool:
        key = (number, id(loaded))
        found = self._matters.get(key)
        if found is None:
            found = self._matters[key] = (
                loaded.name == self._uploads[number].name
                or loaded.build_id == self._build_ids[number]
                or not self._asked[number].isdisjoint(loaded.symbols)
            )
            self._kept.append(loaded)
        return found
