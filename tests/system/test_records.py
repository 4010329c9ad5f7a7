"""NamedTuple without typing is typing's, as far as anybody can tell."""

import copy
import pickle
import typing
from collections.abc import Callable
from typing import Any

import pytest

from lpmangle.system import records


class Quick(records.NamedTuple):
    first: int
    second: "str" = "two"
    third: tuple[int, ...] = ()

    @property
    def both(self) -> str:
        return f"{self.first} {self.second}"


class Quicker(Quick):
    """Has the fields of what it is made from, and no others."""

    __slots__ = ()


class Usual(typing.NamedTuple):
    first: int
    second: "str" = "two"
    third: tuple[int, ...] = ()

    @property
    def both(self) -> str:
        return f"{self.first} {self.second}"


class MoreUsual(Usual):
    """The same with typing's."""

    __slots__ = ()


PAIRS = [(Quick, Usual), (Quicker, MoreUsual)]
USES: dict[str, Callable[[Any], object]] = {
    "by place": lambda kind: kind(1, "b", (3,)),
    "by name": lambda kind: kind(third=(3,), first=1),
    "both": lambda kind: kind(1, third=(3,)),
    "too few": lambda kind: kind(),
    "too many": lambda kind: kind(1, "b", (3,), 4),
    "twice": lambda kind: kind(1, first=2),
    "unknown": lambda kind: kind(1, fourth=4),
    "made of all": lambda kind: kind._make([1, "b", ()]),
    "made of too few": lambda kind: kind._make([1, "b"]),
    "made of too many": lambda kind: kind._make(range(4)),
    "another": lambda kind: kind(1)._replace(second="b"),
    "as a dict": lambda kind: kind(1)._asdict(),
    "fields": lambda kind: (kind._fields, kind._field_defaults, kind.__match_args__),
    "method": lambda kind: kind(1, "b").both,
    "other attribute": lambda kind: setattr(kind(1), "fourth", 4),
    "field set": lambda kind: setattr(kind(1), "first", 4),
    "in words": lambda kind: repr(kind(1)).partition("(")[2],
    "copied": lambda kind: copy.deepcopy(kind(1, "b")),
    "pickled": lambda kind: [pickle.loads(pickle.dumps(kind(1), version)) for version in range(2, 6)],
    "kind of the copy": lambda kind: type(copy.copy(kind(1))) is kind,
    "equal, hashed, ordered": lambda kind: (kind(1) == (1, "two", ()), hash(kind(1)), kind(1) < kind(2)),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(("quick", "usual"), PAIRS, ids=["itself", "a subclass"])
def test_as_typing_has_it(quick: type, usual: type, use: str) -> None:
    try:
        expected = USES[use](usual)
    except (TypeError, AttributeError) as error:
        with pytest.raises(type(error)):
            USES[use](quick)
    else:
        assert USES[use](quick) == expected
