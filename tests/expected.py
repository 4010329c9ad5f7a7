"""What the symbols of tests/data/src are for Xen, written by hand, to check lpmangle."""

from __future__ import annotations

from dataclasses import dataclass

LONG_NAMES = tuple(f"long.c#of_{n}_bytes_".ljust(n, "x") for n in (85, 110, 126, 127, 140))


@dataclass(frozen=True)
class Expected:
    """What the symbols that a source defines are for Xen. A name may be there twice."""

    new_local: tuple[str, ...] = ()
    new_global: tuple[str, ...] = ()  # GLOBAL or WEAK
    overriding: tuple[str, ...] = ()
    signature: tuple[str, ...] = ()  # new and LOCAL, but it names a group, so it is not renamed

    def __add__(self, other: Expected) -> Expected:
        return Expected(
            self.new_local + other.new_local,
            self.new_global + other.new_global,
            self.overriding + other.overriding,
            self.signature + other.signature,
        )


def _fix(prefix: str, entry: str) -> Expected:
    names = (f"{prefix}fix_check.constprop.0", f"{prefix}livepatch_fix")
    return Expected(new_local=names, overriding=(entry,))


SYMBOLS = {
    "emulate": Expected(
        new_local=(
            "livepatch_emulate",
            "x86_emulate.c#__func__.1804289383",
            "x86_emulate.c#_get_fpu",
            "x86_emulate.c#emulate_retry",
            "x86_emulate.c#get_fpu_calls",
            "x86_emulate.c#once_.3",
        ),
        new_global=("gnttab_map_frame_begin",),
        overriding=(
            "arch/x86/x86_emulate.c#read_ulong",
            "x86_emulate.c#x86_emulate",
            "x86_emulate_wrapper",
        ),
    ),
    "helper": Expected(
        new_local=(
            "__func__.2",
            "calls.3",
            "emulate_retry",
            "lp_helper",
            "lp_load",
            "lp_new_entry.cold",
        ),
        new_global=("livepatch_load_data_lp_load", "lp_new_entry"),
    ),
    "fix_a": _fix("rtc.c#", "rtc_update_irq"),
    "fix_b": _fix("vpt.c#", "vpt_update_irq"),
    "fix_a_plain": _fix("", "rtc_update_irq"),
    "fix_b_plain": _fix("", "vpt_update_irq"),
    "entry": Expected(
        new_local=("traps.c#entry_pad",),
        overriding=("traps.c#do_entry", "traps.c#do_entry_alias"),
    ),
    "hooks": Expected(
        new_local=("hooks.c#loaded", "hooks.c#on_load"),
        new_global=("livepatch_load_data_on_load",),
    ),
    "single": Expected(
        new_local=("livepatch_single", "single.c#lookup", "single.c#table"),
        new_global=("single_new",),
        overriding=("single.c#single_old", "single_entry"),
    ),
    "group": Expected(new_local=("group.c#member",), signature=("group.c#signature",)),
    "boundary": Expected(
        new_local=("edge.c#first", "edge.c#end_of_first", "edge.c#inside"),
        overriding=("edge.c#patched",),
    ),
    "long_names": Expected(new_local=LONG_NAMES),
    "notes": Expected(),
}
