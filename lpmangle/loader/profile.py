"""How the loader's rules differ between versions of Xen and vendors, as data: one flag per difference.

The first releases were found by comparing the tags from 4.14.0 to 4.22.0; where a tag could not show it, a comment says
so. In 4.22 and the tree of August 2026 nothing else has changed since 4.21.0.
"""

from bisect import bisect_right
from typing import overload

from lpmangle.errors import NamingError
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


class Number:
    """A number of Profile that changes: `steps` are the releases where it does; every branch begins with one."""

    def __init__(self, steps: dict[Version, int]) -> None:
        self.steps = dict(sorted(steps.items()))

    def of(self, version: Version) -> int:
        at = bisect_right(list(self.steps), version)
        return list(self.steps.values())[max(at - 1, 0)]

    @overload
    def __get__(self, profile: None, owner: type) -> "Number": ...
    @overload
    def __get__(self, profile: "Profile", owner: type) -> int: ...
    def __get__(self, profile: "Profile | None", owner: type) -> "Number | int":
        return self if profile is None else self.of(profile.version)


XENSERVER = "xenserver"  # and XCP-ng, which has the same patches
VENDORS = (XENSERVER,)


class Profile:
    """The rules of one hypervisor's loader, as released or as one of VENDORS has changed it; NamingError for others."""

    def __init__(self, version: Version, vendor: str = "") -> None:
        if vendor not in ("", *VENDORS):
            raise NamingError(f"{vendor!r} is not a known vendor", hint=f"known are {', '.join(VENDORS)}")
        self.version = version
        self.vendor = vendor

    @property
    def duplicates_accepted(self) -> bool:
        """Their "livepatch: Ignore duplicate new symbols": build_symbol_table prints its message and goes on."""
        return self.vendor == XENSERVER

    # "livepatch: do not ignore sections with 0 size": empty loaded sections are placed like others.
    empty_sections_placed = Change((4, 14, 5), (4, 15, 3), (4, 16, 1), (4, 17, 0))
    # "livepatch: avoid relocations referencing ignored section symbols": they are refused.
    ignored_symbols_refused = Change((4, 14, 5), (4, 15, 3), (4, 16, 1), (4, 17, 0))
    # "Livepatch: resolve old address before function verification"
    old_address_first = Change((4, 14, 5), (4, 15, 3), (4, 16, 1), (4, 17, 0))
    # "xen/x86: Livepatch: support patching CET-enhanced functions": where a function begins with ENDBR64, that stays,
    # and the jump comes after it.
    endbr_kept = Change((4, 14, 5), (4, 15, 3), (4, 16, 1), (4, 17, 0))
    # "xen/livepatch: Fix .altinstructions safety checks": before, alternatives for code elsewhere were not refused.
    alternatives_in_range = Change((4, 17, 4), (4, 18, 0))
    # "x86/livepatch: Fix livepatch application when CET is active": CR0.WP stays set while functions are patched.
    write_protected = Change((4, 16, 4), (4, 17, 1), (4, 18, 0))
    # "livepatch: do not use .livepatch.funcs section to store internal state": before, apply writes there.
    functions_read_only = Change((4, 17, 3), (4, 18, 1), (4, 19, 0))
    # "xen/livepatch: do Xen build-id check earlier": xen_depends is looked at before anything is placed.
    xen_depends_first = Change((4, 18, 4), (4, 19, 1), (4, 20, 0))
    # "xen/livepatch: drop load_addr Elf section field": what is not loaded is read where it is in the file.
    unloaded_read_in_file = Change((4, 18, 4), (4, 19, 1), (4, 20, 0))
    # Of the same week: the errno of a bad note is returned as it is.
    note_errors_kept = Change((4, 18, 4), (4, 19, 1), (4, 20, 0))
    # "x86/alternatives: do not BUG during apply": an alternative that does not fit is refused.
    alternatives_without_bug = Change((4, 18, 4), (4, 19, 1), (4, 20, 0))
    # "x86/alternatives: Support replacements when a feature is not present" (May 2025, with the fixes of the time, in
    # all branches; seen in 4.17.6 and 4.21.0, the others inferred): bit 15 of a feature means NOT.
    alternatives_not = Change((4, 17, 6), (4, 18, 6), (4, 19, 3), (4, 20, 1), (4, 21, 0))
    # "xen/livepatch: Support new altcall scheme": .alt_call_sites is read and applied.
    alternative_calls = Change((4, 21, 0))
    # Arm has a fourth kind of bug frames (BUGFRAME_NR, asm/bug.h); seen in 4.14.6 and 4.17.5, not between them.
    arm_bug_frames_4 = Change((4, 17, 0))

    # LIVEPATCH_VMAP_START (asm/config.h, asm/mmu/layout.h): where payloads are mapped on Arm; of 4.18 inferred.
    arm64_payloads = Number({(4, 14, 0): 0xA00000, (4, 18, 0): 0x20001000000})
    arm32_payloads = Number({(4, 14, 0): 0xA00000, (4, 18, 0): 0x1000000})

    # ARM_NCAPS (asm/cpufeature.h), seen in 4.14.6 and 4.17.5; the rest follows from when the features were added.
    arm_features = Number(
        {
            (4, 14, 0): 10, (4, 14, 5): 15,
            (4, 15, 0): 12, (4, 15, 3): 16,
            (4, 16, 0): 12, (4, 16, 1): 16,
            (4, 17, 0): 18,
        }
    )  # fmt: skip

    # NCAPINTS (arch/x86/include/asm/cpufeatures.h): words of 32 bits of the features that an x86 alternative may name.
    # One word per "word N" of public/arch-x86/cpufeatureset.h, empty ones too, and two of Xen's own.
    feature_words = Number(
        {
            (4, 14, 0): 13, (4, 14, 5): 16, (4, 14, 6): 20,
            (4, 15, 0): 13, (4, 15, 3): 16, (4, 15, 5): 20,
            (4, 16, 0): 14, (4, 16, 1): 16, (4, 16, 4): 18, (4, 16, 5): 20,
            (4, 17, 0): 16, (4, 17, 1): 18, (4, 17, 2): 20, (4, 17, 6): 21,
            (4, 18, 0): 20, (4, 18, 6): 21,
            (4, 19, 0): 20, (4, 19, 3): 21,
            (4, 20, 0): 20, (4, 20, 1): 21,
            (4, 21, 0): 21, (4, 21, 1): 22,
            (4, 22, 0): 22,
        }
    )  # fmt: skip


CHANGES = {name: change for name, change in vars(Profile).items() if isinstance(change, Change)}
