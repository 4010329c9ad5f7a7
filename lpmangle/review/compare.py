"""Compares two payloads, for `lpmangle compare`.

Code is equal if its bytes are equal, except where relocations fill them in, and if these relocations have the same
places, types and targets (`identity`, `code`). On x86, R_X86_64_PLT32 counts as R_X86_64_PC32: Xen treats both alike
(arch_livepatch_perform_rela).
"""

from collections import Counter
from functools import cached_property
from typing import NamedTuple

from lpmangle import elf
from lpmangle.loader.lost_state import LostState, lost_state
from lpmangle.review import special
from lpmangle.review.differences import Fate, FunctionChange, Sides, SymbolChange, Why, pair, verdict_of
from lpmangle.review.inventory import CONSTANT, FUNCTION, STATE, Added, Inventory
from lpmangle.review.subject import ReplacedFunction
from lpmangle.review.transition import Transition
from lpmangle.xen.variables import stable_names


class HookChange(NamedTuple):
    """Hooks of one kind, and the original names of the functions that each payload has called."""

    kind: str
    verdict: Fate
    old: list[bytes]
    new: list[bytes]


class SpecialChange(NamedTuple):
    """Entries of a section that Xen reads: how many both payloads have, and how many only one of them has."""

    section: str
    both: int
    gone: int
    new: int


class Comparison:
    """`old` and `new`, both completely read. `transition` is what happens on a host."""

    def __init__(self, old: Inventory, new: Inventory, transition: Transition) -> None:
        self.old = old
        self.new = new
        self.transition = transition
        self._sides = Sides(old.places, new.places)

    @cached_property
    def functions(self) -> list[FunctionChange]:
        """The functions that one of them replaces or deletes, by name; those that only the new one has come last."""
        found = []
        for name, old, new in pair(self.old.functions, self.new.functions, _name):
            why = self._sides.entries_differ(old, new) if old and new else None
            found.append(FunctionChange(name, verdict_of(old, new, why), old, new, why))
        return found

    @cached_property
    def helpers(self) -> list[SymbolChange]:
        """Functions that they add."""
        return self._symbols(FUNCTION)

    @cached_property
    def variables(self) -> list[SymbolChange]:
        """Variables: whether they are there, and their initial values."""
        return self._symbols(STATE)

    @cached_property
    def constants(self) -> list[SymbolChange]:
        """Named constants. One whose name alone differs is equal."""
        return self._symbols(CONSTANT)

    def _symbols(self, kind: str) -> list[SymbolChange]:
        old, new = ([one for one in side.added if one.kind == kind] for side in (self.old, self.new))
        names, new_names = _names(old, kind), _names(new, kind)
        pairs = [one[1:] for one in pair(old, new, names.__getitem__, new_names.__getitem__)]
        if kind == CONSTANT:
            pairs = self._paired_by_content(pairs)
        found = []
        for one, other in pairs:
            why = self._differ(kind, one, other) if one and other else None
            sizes = one.size if one else None, other.size if other else None
            name = other.name if other else one.name if one else b""
            found.append(SymbolChange(name, verdict_of(one, other, why), *sizes, why))
        return found

    def _paired_by_content(
        self, pairs: list[tuple[Added | None, Added | None]]
    ) -> list[tuple[Added | None, Added | None]]:
        gone = [one for one, other in pairs if one and not other]
        new = [other for one, other in pairs if other and not one]
        old_places, new_places = self._sides
        others = pair(
            gone, new, lambda one: old_places.constant(one.extent, 0), lambda one: new_places.constant(one.extent, 0)
        )
        return [one for one in pairs if all(one)] + [one[1:] for one in others]

    def _differ(self, kind: str, old: Added, new: Added) -> Why | None:
        if kind == FUNCTION:
            return self._sides.code_differs(old.extent, new.extent) if old.size or new.size else None
        return self._sides.data_differs(old.extent, new.extent)

    @cached_property
    def lost(self) -> LostState:
        """The state that is lost if the new one replaces the old one; none if it is put on top."""
        if self.new.depends is not None and self.new.depends == self.old.build_id:
            return LostState([], [])
        sections = [section.name.encode() for section in self.new.view.sections]
        return lost_state(self.old.subject.variables, self.new.subject.variables, sections)

    @cached_property
    def hooks(self) -> list[HookChange]:
        found = []
        for kind, old, new in pair(self.old.hooks, self.new.hooks, _kind):
            before, after = old.functions if old else [], new.functions if new else []
            why = Why("bytes") if before != after else None
            found.append(HookChange(kind, verdict_of(old, new, why), before, after))
        return found

    @cached_property
    def special(self) -> list[SpecialChange]:
        old, new = special.entries(self.old.places), special.entries(self.new.places)
        found = []
        for section in sorted({*old, *new}):
            before, after = old.get(section, Counter()), new.get(section, Counter())
            both = (before & after).total()
            found.append(SpecialChange(section, both, before.total() - both, after.total() - both))
        return found

    @cached_property
    def needs(self) -> tuple[list[bytes], list[bytes]]:
        """The names that only the old one refers to, and those that only the new one does."""
        old, new = ({one.name for one in side.needed} for side in (self.old, self.new))
        return sorted(old - new), sorted(new - old)

    @cached_property
    def globals_gone(self) -> list[bytes]:
        """GLOBAL and WEAK symbols that only the old one has: a payload on top may refer to them."""
        old, new = ({one.name for one in side.added if one.binding != elf.STB_LOCAL} for side in (self.old, self.new))
        return sorted(old - new)

    @cached_property
    def facts(self) -> list[tuple[str, str | None, str | None]]:
        """Other facts that differ: machine, depends, hypervisor, compilers."""
        pairs = [
            (name, getattr(self.old, name), getattr(self.new, name)) for name in ("machine", "depends", "xen_depends")
        ]
        pairs.append(("compilers", "; ".join(self.old.compilers), "; ".join(self.new.compilers)))
        return [one for one in pairs if one[1] != one[2]]

    @property
    def notes(self) -> tuple[list[str], list[str], list[str]]:
        """The notes of only the old one, of both, and of only the new one, each as KEY=VALUE."""
        old, new = self.old.subject.notes, self.new.subject.notes
        return (
            [note for note in old if note not in new],
            [note for note in old if note in new],
            [note for note in new if note not in old],
        )

    @property
    def differs(self) -> bool:
        """Whether they differ in more than names, places, build-id and compilers."""
        verdicts = [one.verdict for one in (*self.helpers, *self.variables, *self.constants)]
        verdicts += [one.verdict for one in self.functions] + [one.verdict for one in self.hooks]
        return (
            any(verdict != Fate.EQUAL for verdict in verdicts)
            or any(one.gone or one.new for one in self.special)
            or self.needs != ([], [])
            or bool(self.globals_gone)
            or any(name != "compilers" for name, _, _ in self.facts)
        )


def _names(several: list[Added], kind: str) -> dict[Added, bytes]:
    """The name by which each is known in another build: that of a function without what a compiler has appended."""
    stable = {} if kind == FUNCTION else stable_names(one.name for one in several)
    return {one: stable.get(one.name, one.name) for one in several}


def _name(entry: ReplacedFunction) -> bytes:
    return entry.name


def _kind(hook: special.Hook) -> str:
    return hook.kind
