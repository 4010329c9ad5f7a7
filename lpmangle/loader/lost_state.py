"""What `replace` loses: variables of the old payloads that the new one also has start anew.

livepatch.c:livepatch_action reverts everything that is applied and then applies the new payload. That has its own
memory, with the values of its file (move_payload). Nothing is copied, unless a hook does it.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lpmangle.elf import text
from lpmangle.errors import counted, listed
from lpmangle.xen.abi import HOOKS_PREFIX
from lpmangle.xen.variables import Variable

MOST_NAMES = 12
# The hooks that Xen calls when a payload replaces others; with hooks before or after that, replace is refused.
_CARRIERS = frozenset((HOOKS_PREFIX + kind).encode() for kind in ("load", "apply"))


class LostState(NamedTuple):
    """`variables` are those of the new payload, `hooks` the sections of its hooks, one of which may copy the values."""

    variables: list[Variable]
    hooks: list[str]

    @property
    def words(self) -> str:
        """The variables with their sizes, and the hooks that may copy them; not escaped."""
        first = [f"{text(one.name)} ({counted(one.size, 'byte')})" for one in self.variables[:MOST_NAMES]]
        shown = listed(first, len(self.variables))
        carried = f"; unless its {self.carriers} hook carries {'it' if len(self.variables) == 1 else 'them'} over"
        return shown + (carried if self.hooks else "")

    @property
    def carriers(self) -> str:
        """The kinds of those hooks."""
        return " or ".join(name.removeprefix(HOOKS_PREFIX) for name in self.hooks)


def lost_state(old: Iterable[Variable], new: Sequence[Variable], sections: Iterable[bytes]) -> LostState:
    """What is lost when a payload with the variables `new` replaces payloads with those of `old`.

    `sections` are the names of the new one's sections, or of those of its hooks.
    """
    known = {name for one in old for name in (one.name, one.stable)}
    hooks = [text(name) for name in sections if name in _CARRIERS]
    return LostState([one for one in new if one.name in known or one.stable in known], hooks)
