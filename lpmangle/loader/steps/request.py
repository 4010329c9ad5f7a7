"""Before the file is looked at: tools/misc/xen-livepatch.c, libxc, livepatch.c:livepatch_upload, verify_payload."""

import os

from lpmangle.loader.findings import Report
from lpmangle.loader.rules import Rule
from lpmangle.loader.state import State
from lpmangle.xen.abi import LIVEPATCH_MAX_SIZE, MAX_PAYLOAD_NAME


def check_request(name: str, size: int, state: State, report: Report) -> bool:
    """The name of an upload and the size of its file. All refusals are silent. False if nothing more can be checked."""
    if len(os.fsencode(name)) > MAX_PAYLOAD_NAME:
        report.refuse(Rule.NAME_LENGTH, detail=f"{len(os.fsencode(name))} bytes")
    if not size:
        report.refuse(Rule.EMPTY_FILE)
        return False
    if size > LIVEPATCH_MAX_SIZE:
        report.refuse(Rule.TOO_LARGE, detail=f"{size} bytes, Xen accepts {LIVEPATCH_MAX_SIZE}")
    if any(loaded.name == name for loaded in state.loaded):
        report.refuse(Rule.NAME_IN_USE, detail=name)
    return True
