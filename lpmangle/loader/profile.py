"""How the loader's rules differ between versions of Xen, as data.

Read in the sources of Xen 4.14 to 4.20 (Sept 2024); nothing is known to have changed in 4.21. Where the first point
release of a stable branch with a change could not be seen in source, the entry says "inferred". Not modelled: XCP-ng
and XenServer carry a patch "livepatch-ignore-duplicate-new", which by its name does not refuse duplicate new symbols.
"""

from typing import NamedTuple

from lpmangle.xen.versions import Version


class Change(NamedTuple):
    """A change of the rules: the first version with it, and the first point releases of older branches that have it."""

    since: Version
    backports: tuple[Version, ...] = ()

    def is_in(self, version: Version) -> bool:
        if version >= self.since:
            return True
        return any(version[:2] == first[:2] and version >= first for first in self.backports)


CHANGES = {
    # "livepatch: do not ignore sections with 0 size" and "correctly handle altinstruction sections" (April 2022):
    # empty loaded sections are placed; a relocation against a symbol of a section that is not loaded is refused.
    "empty_sections_placed": Change((4, 17, 0), ((4, 16, 1),)),
    # "x86: CET-IBT" and livepatching (March 2022): the old address is resolved before arch_livepatch_verify_func,
    # which wants 9 bytes, not 5, where the old function begins with ENDBR64.
    "endbr": Change((4, 17, 0)),
    # "livepatch: properly build the test for alternatives in range" (April 2023): it never refused before.
    "alternatives_in_range": Change((4, 18, 0), ((4, 17, 2),)),
    # "xen/livepatch: do Xen build-id check earlier", "drop load_addr Elf section field", "apply_alternatives() without
    # BUG" (Sept 2024; 4.19.1 has them; 4.18.4, of the same week, inferred): xen_depends is checked before anything is
    # placed, errors of notes are returned as they are, a section that is not loaded is read where it is in the file.
    "xen_depends_first": Change((4, 20, 0), ((4, 19, 1), (4, 18, 4))),
}


class Rules(NamedTuple):
    """Which of CHANGES a version has."""

    version: Version
    empty_sections_placed: bool
    endbr: bool
    alternatives_in_range: bool
    xen_depends_first: bool


def rules_of(version: Version) -> Rules:
    return Rules(version, **{name: change.is_in(version) for name, change in CHANGES.items()})
