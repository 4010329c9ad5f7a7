"""What Xen will say to an upload: its loader's rules played through offline, in its own order and words.

    structure     header, sections, names, symbols          xen/common/livepatch_elf.c
    memory        placement, symbol values                  livepatch.c:move_payload, livepatch_elf.c
    relocations   and relocations_arm                       xen/arch/*/livepatch.c
    contents      special sections, hooks, notes            livepatch.c:prepare_payload
      functions   alternatives
    symbols       duplicate names                           livepatch.c:build_symbol_table
    actions       apply or replace                          livepatch.c:livepatch_action
    advice        what the loader does not notice

`upload` calls them in that order; `state` is the hypervisor and its payloads; `versions`, `machines` and `findings` are
data; `matrix` and `stacks` check many hosts at once. A package, because the loader's phases are many, and each is a
page that can be read beside Xen's.
"""

from lpmangle.loader.rules import CRASH, NOT_CHECKED, REFUSED, WARNING, Finding
from lpmangle.loader.state import Loaded, State
from lpmangle.loader.upload import Payload, Verdict, check_sequence, check_upload, take
from lpmangle.xen.hypervisor import Hypervisor

__all__ = [
    "CRASH",
    "NOT_CHECKED",
    "REFUSED",
    "WARNING",
    "Finding",
    "Hypervisor",
    "Loaded",
    "Payload",
    "State",
    "Verdict",
    "check_sequence",
    "check_upload",
    "take",
]
