"""What happens on a host that runs the old payload and gets the new one, by the rules of Xen's loader."""

from typing import NamedTuple

from lpmangle import elf
from lpmangle.errors import LpmangleError
from lpmangle.loader import Loaded, State, Upload, Verdict, check_upload, take
from lpmangle.loader.steps.actions import REPLACE
from lpmangle.xen.abi import HOOKS_PREFIX

_APPLY, _REVERT = HOOKS_PREFIX + "apply", HOOKS_PREFIX + "revert"


class Transition(NamedTuple):
    """`verdict` is Xen's answer to the new payload while the old one is applied; `printed` are the lines on its
    console.

    If the old one cannot be loaded, `verdict` is None, and `trouble` says why.
    """

    verdict: Verdict | None
    printed: list[str]
    trouble: str = ""

    @property
    def replaces(self) -> bool:
        """Whether the new payload is accepted and then replaces the old one."""
        return self.verdict is not None and self.verdict.action == REPLACE


def transition(old: Upload, new: Upload, state: State) -> Transition:
    """Simulate the upload of `new` on a hypervisor in `state`, after `old` was loaded and applied."""
    try:
        before = take(old, state)
    except LpmangleError as error:
        return Transition(None, [], error.message)
    # A rebuilt payload may have the same name; then the new one is uploaded under another.
    state.loaded.append(before)
    state.applied.append(before)
    verdict = check_upload(new, state)
    return Transition(verdict, _printed(verdict, before, old, new))


def _printed(verdict: Verdict, before: Loaded, old: Upload, new: Upload) -> list[str]:
    """The lines of upload and action (livepatch.c:livepatch_do_action, check_for_livepatch_work); seen on Xen 4.17."""
    lines = list(verdict.printed)
    if verdict.loaded is None:
        return lines
    then = [line for finding in verdict.then if finding.fatal for line in finding.lines]
    if verdict.action != REPLACE:
        return lines + then
    called = "Calling {} action hook function".format
    count = len(verdict.loaded.functions)
    return [
        *lines,
        f"livepatch: {before.name}: {called('revert') if _has(old, _REVERT) else 'Reverting'}",
        f"livepatch: {new.name}: Verifying enabled expectations for all functions",
        f"livepatch: {new.name}: {called('apply') if _has(new, _APPLY) else f'Applying {count} functions'}",
        f"livepatch: {new.name} finished REPLACE with rc=0",
    ]


def _has(upload: Upload, section: str) -> bool:
    found = elf.parse_sections(upload.data).section_named(section)
    return found is not None and found.size > 0
