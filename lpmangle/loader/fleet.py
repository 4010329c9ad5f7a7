"""Payloads to upload against many stacks of payloads that are loaded already, each payload read once.

Most of what decides on an upload is the same for every stack. So each upload is played once for every *set of loaded
payloads that matter to it*: those that have its name or its build-id, or a symbol of a name that it asks for.
"""

from typing import NamedTuple

from lpmangle.loader.rules import Finding
from lpmangle.loader.state import Allocator, Loaded, State
from lpmangle.loader.steps import actions
from lpmangle.loader.upload import Payload, Verdict, check_upload, perform


class Cell(NamedTuple):
    """What one stack makes of one payload: Xen's answer to the upload, and what could be done with it then."""

    status: str
    first: Finding | None
    attempt: str
    then: Finding | None

    @property
    def good(self) -> bool:
        return self.first is None and self.then is None


class Matrix:
    """Checks `payloads`, in their order, against one stack after the other."""

    def __init__(self, payloads: list[Payload], state: State) -> None:
        self.state = state.copy()
        self.state.allocator = Allocator()
        self._payloads = payloads
        self._asked: list[frozenset[bytes]] = []
        self._build_ids: list[bytes] = []
        self._verdicts: dict[tuple[int, ...], Verdict] = {}
        self._matters: dict[tuple[int, int], bool] = {}
        self._kept: list[Loaded] = []  # an id() is that of one object only as long as it lives
        for payload in payloads:
            alone = self.state.copy()
            alone.loaded, alone.applied, alone.asked = [], [], set()
            verdict = check_upload(payload, alone)
            self._asked.append(frozenset(alone.asked))
            self._build_ids.append(verdict.build_id)

    def check(self, stack: list[Loaded]) -> list[Cell]:
        """One cell for each payload; `stack` is loaded and applied, in that order."""
        state = self.state.copy()
        state.loaded, state.applied = list(stack), list(stack)
        return [self._check(number, state) for number in range(len(self._payloads))]

    def _check(self, number: int, state: State) -> Cell:
        relevant = [loaded for loaded in state.loaded if self._is_relevant(number, loaded)]
        key = (number, *map(id, relevant))
        verdict = self._verdicts.get(key)
        if verdict is None:
            alone = state.copy()
            alone.loaded, alone.applied = relevant, []
            verdict = self._verdicts[key] = check_upload(self._payloads[number], alone)
            self._kept += relevant
        if not verdict.loaded:
            return Cell(verdict.status, verdict.first, "", None)
        state.loaded.append(verdict.loaded)
        attempt, then = actions.next_action(verdict.loaded, verdict.xen_depends, state)
        perform(attempt, then, verdict.loaded, state)
        return Cell(verdict.status, None, attempt, next((finding for finding in then if finding.fatal), None))

    def _is_relevant(self, number: int, loaded: Loaded) -> bool:
        key = (number, id(loaded))
        found = self._matters.get(key)
        if found is None:
            found = self._matters[key] = (
                loaded.name == self._payloads[number].name
                or loaded.build_id == self._build_ids[number]
                or not self._asked[number].isdisjoint(loaded.symbols)
            )
            self._kept.append(loaded)
        return found
