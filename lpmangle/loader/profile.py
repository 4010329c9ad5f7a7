"""How the loader's rules differ between versions of Xen, as data: one flag per difference.

Read in the sources of Xen 4.14 to 4.20 (Sept 2024); nothing is known to have changed in 4.21. Where the first point
release of a stable branch with a change could not be seen in source, the entry says "inferred". Not modelled: XCP-ng
and XenServer carry a patch "livepatch-ignore-duplicate-new", which by its name does not refuse duplicate new symbols.
"""

from typing import overload

from lpmangle.xen.versions import Version


class Change:
    """A flag of Profile: whether a version has a change. `first` are the first releases with it, one per branch.

    Branches older than all of them do not have it, newer ones do.
    """

    def __init__(self, *first: Version) -> None:
        self.first = sorted(first)

    def is_in(self, version: Version) -> bool:
        branch = version[:2]
        return version >= self.first[-1] or any(branch == first[:2] and version >= first for first in self.first)

    @overload
    def __get__(self, profile: None, owner: type) -> "Change": ...
    @overload
    def __get__(self, profile: "Profile", owner: type) -> bool: ...
    def __get__(self, profile: "Profile | None", owner: type) -> "Change | bool":
        return self if profile is None else self.is_in(profile.version)


class Profile:
    """The rules of one hypervisor's loader."""

    def __init__(self, version: Version) -> None:
        self.version = version

    # "livepatch: do not ignore sections with 0 size" and "correctly handle altinstruction sections" (April 2022):
    # empty loaded sections are placed; a relocation against a symbol of a section that is not loaded is refused.
    empty_sections_placed = Change((4, 16, 1), (4, 17, 0))
    # "x86: CET-IBT" and livepatching (March 2022): the old address is resolved before arch_livepatch_verify_func,
    # which wants 9 bytes, not 5, where the old function begins with ENDBR64.
    endbr = Change((4, 17, 0))
    # "livepatch: properly build the test for alternatives in range" (April 2023): it never refused before.
    alternatives_in_range = Change((4, 17, 2), (4, 18, 0))
    # "xen/livepatch: do Xen build-id check earlier" (Sept 2024; 4.19.1 has it; 4.18.4, of the same week, inferred, as
    # for the next two): xen_depends is checked before anything is placed.
    xen_depends_first = Change((4, 18, 4), (4, 19, 1), (4, 20, 0))
    # "xen/livepatch: drop load_addr Elf section field": a note in a section that is not loaded is read where it is in
    # the file; the errno of a bad note is returned as it is.
    notes_read_in_file = Change((4, 18, 4), (4, 19, 1), (4, 20, 0))
    # "x86/alternatives: apply_alternatives() without BUG": one that does not fit is refused.
    alternatives_without_bug = Change((4, 18, 4), (4, 19, 1), (4, 20, 0))


CHANGES = {name: change for name, change in vars(Profile).items() if isinstance(change, Change)}
