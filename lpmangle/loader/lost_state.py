"""What `replace` loses: variables of the payloads before that the new one brings again start anew.

livepatch.c:livepatch_action reverts all that is applied and then applies the new payload, whose variables are its own:
it has memory of its own, as its file says it (move_payload). Nothing is copied, unless a hook does it.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lpmangle import elf
from lpmangle.elf import text
from lpmangle.errors import counted
from lpmangle.loader.steps.prepare import APPLY_HOOKS
from lpmangle.xen.variables import Variable

MOST_NAMES = 12


class LostState(NamedTuple):
    """`variables` are those of the new payload, `hooks` the sections of its hooks, one of which may copy the values."""

    variables: list[Variable]
    hooks: list[str]

    @property
    def words(self) -> str:
        """Which, with their sizes, and what may carry them over; not escaped."""
        shown = [f"{text(one.name)} ({counted(one.size, 'byte')})" for one in self.variables[:MOST_NAMES]]
        more = f" and {len(self.variables) - MOST_NAMES} more" if len(self.variables) > MOST_NAMES else ""
        carried = f"; {_hooks(self.hooks)} may carry {'it' if len(self.variables) == 1 else 'them'} over"
        return ", ".join(shown) + more + (carried if self.hooks else "")


def lost_state(old: Iterable[Variable], new: Sequence[Variable], view: elf.Object) -> LostState:
    """What is lost when the payload of `view`, whose variables are `new`, replaces payloads with those of `old`."""
    known = {name for one in old for name in (one.name, one.stable)}
    hooks = [text(name) for name in APPLY_HOOKS if view.section_named(text(name))]
    return LostState([one for one in new if one.name in known or one.stable in known], hooks)


def _hooks(sections: list[str]) -> str:
    kinds = [name.removeprefix(".livepatch.hooks.") for name in sections]
    return f"its {' or '.join(kinds)} hook"
