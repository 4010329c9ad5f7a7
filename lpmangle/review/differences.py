"""Two payloads side by side, part by part: what is equal, what is not, and the first difference."""

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from enum import StrEnum
from typing import NamedTuple, TypeVar

from lpmangle.review.code import Code, code_at
from lpmangle.review.identity import Extent, Places, Target
from lpmangle.review.subject import ReplacedFunction
from lpmangle.xen.payload import Location

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class Fate(StrEnum):
    """What happened to something from the old payload to the new one."""

    EQUAL = "equal"
    CHANGED = "changed"
    GONE = "gone"  # only in the old one
    NEW = "new"  # only in the new one


class Why(NamedTuple):
    """The first difference of two pieces of code or data.

    `what` is `size`, `bytes`, `target` (a reference has another target: `new`, not `old`), `references` (they are at
    different places), `deletion` (only one of them deletes code, or a different number of bytes), or `unknown`: one of
    them cannot be read. `at` is the place, in bytes from the start; `sizes` are those of both.
    """

    what: str
    at: int = 0
    old: Target | None = None
    new: Target | None = None
    sizes: tuple[int, int] = (0, 0)


class FunctionChange(NamedTuple):
    """A function that one of the payloads, or both, replace; `old` and `new` are their entries for it."""

    name: bytes
    verdict: Fate
    old: ReplacedFunction | None
    new: ReplacedFunction | None
    why: Why | None = None


class SymbolChange(NamedTuple):
    """A symbol of one of the payloads, or both; sizes are in bytes, None if one does not have it."""

    name: bytes
    verdict: Fate
    old_size: int | None
    new_size: int | None
    why: Why | None = None


def pair(
    old: Iterable[T], new: Iterable[T], key: Callable[[T], K], new_key: Callable[[T], K] | None = None
) -> list[tuple[K, T | None, T | None]]:
    """Pairs with the same key on both sides, in the order of the old ones, then those that are only new.

    If several have the same key, they are paired in order. `new_key` is for the new ones, if it differs.
    """
    waiting: dict[K, deque[T]] = {}
    for one in new:
        waiting.setdefault((new_key or key)(one), deque()).append(one)
    pairs: list[tuple[K, T | None, T | None]] = []
    for one in old:
        several = waiting.get(key(one))
        pairs.append((key(one), one, several.popleft() if several else None))
    pairs += [(name, None, one) for name, several in waiting.items() for one in several]
    return pairs


def verdict_of(old: object | None, new: object | None, why: Why | None) -> Fate:
    if new is None:
        return Fate.GONE
    if old is None:
        return Fate.NEW
    return Fate.CHANGED if why else Fate.EQUAL


class Sides(NamedTuple):
    """The places of both payloads."""

    old: Places
    new: Places

    def entries_differ(self, old: ReplacedFunction, new: ReplacedFunction) -> Why | None:
        """Why two payloads replace a function with different code; None if they do not."""
        if old.replacement is None or new.replacement is None:
            same = old.replacement == new.replacement and old.new_size == new.new_size
            return None if same else Why("deletion")
        extents = _extent(self.old, old.replacement, old.new_size), _extent(self.new, new.replacement, new.new_size)
        return self.code_differs(*extents)

    def code_differs(self, old: Extent, new: Extent) -> Why | None:
        """Why two functions are not equal."""
        return _differ(code_at(self.old, old), code_at(self.new, new))

    def data_differs(self, old: Extent, new: Extent) -> Why | None:
        """Why two variables or constants do not begin with the same value."""
        if self.old.is_zero(old) and self.new.is_zero(new):
            sizes = old.end - old.start, new.end - new.start
            return None if sizes[0] == sizes[1] else Why("size", sizes=sizes)
        return _differ(_data(self.old, old), _data(self.new, new))


def _extent(places: Places, at: Location, new_size: int) -> Extent:
    """The replacement of a function: the symbol that begins there, or else as many bytes as the entry says."""
    found = places.at(*at)
    if found and found.start == at.offset and found.end > found.start:
        return found
    return Extent(at.section, at.offset, at.offset + new_size, 0)


def _data(places: Places, extent: Extent) -> Code | None:
    relocations = places.relocations_in(extent.section, extent.start, extent.end)
    if not places.afford(extent.end - extent.start + 64 * len(relocations)):
        return None
    content = places.masked(extent.section, extent.start, extent.end, relocations)
    if len(content) != extent.end - extent.start:
        return None
    return Code(content, tuple(places.reference(one, extent) for one in relocations))


def _differ(old: Code | None, new: Code | None) -> Why | None:
    if old is None or new is None:
        return Why("unknown")
    if len(old.content) != len(new.content):
        return Why("size", sizes=(len(old.content), len(new.content)))
    if old.content != new.content:
        at = next(at for at, (one, other) in enumerate(zip(old.content, new.content, strict=True)) if one != other)
        return Why("bytes", at)
    for one, other in zip(old.references, new.references, strict=False):
        if one.key[:2] != other.key[:2]:
            return Why("references", min(one.at, other.at))
        if one.key != other.key:
            return Why("target", one.at, one.target, other.target)
    return None if len(old.references) == len(new.references) else Why("references")
