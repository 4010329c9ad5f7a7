"""What Xen will answer to an upload: its loader's rules simulated offline, in its own order and words.

The order is in `upload`, and nowhere else. Each step is a module in `steps/`, to be read beside Xen's source:

    request       the upload itself                         xen/common/livepatch.c:verify_payload
    structure     header, sections, names, symbols          livepatch_elf.c
    memory        placement, symbol values                  livepatch.c:move_payload, livepatch_elf.c
    relocations   one file per machine                      livepatch_elf.c, xen/arch/*/livepatch.c
    prepare       sections that must be there, hooks, notes livepatch.c:prepare_payload
      functions   alternatives
    names         duplicate names                           livepatch.c:build_symbol_table
    actions       apply or replace                          livepatch.c:livepatch_action

`image` is the payload on its way through the steps, `state` the hypervisor, `profile` how loaders differ, `rules`
everything that can be found, `findings` what was found, `advice` what the loader does not notice; `fleet` checks many
hosts at once.
"""

from lpmangle.loader.findings import CRASH, NOT_CHECKED, REFUSED, WARNING, Finding
from lpmangle.loader.state import Loaded, State
from lpmangle.loader.upload import NOT_ALL_CHECKED, Upload, Verdict, check_sequence, check_upload, take
from lpmangle.xen.hypervisor import Hypervisor

__all__ = [
    "CRASH",
    "NOT_ALL_CHECKED",
    "NOT_CHECKED",
    "REFUSED",
    "WARNING",
    "Finding",
    "Hypervisor",
    "Loaded",
    "State",
    "Upload",
    "Verdict",
    "check_sequence",
    "check_upload",
    "take",
]
