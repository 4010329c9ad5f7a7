"""`.alt_call_sites`, since 4.21: livepatch.c:prepare_payload, xen/arch/x86/alternative.c:apply_alt_calls."""

from struct import Struct

from lpmangle.loader.findings import Report
from lpmangle.loader.image import Image, hexadecimal
from lpmangle.loader.rules import Rule
from lpmangle.loader.state import State
from lpmangle.xen.machines import ALTERNATIVE_CALL_SIZE

_OFFSET, _POINTER = Struct("<i"), Struct("<Q")
_LENGTH = 6  # ALT_CALL_LEN: call *DISPLACEMENT(%rip)
_CALL = b"\xff\x15"


def check_alternative_calls(image: Image, number: int, state: State, report: Report) -> None:
    """The section's size has been checked."""
    size, address = image.headers[number].size, image.addresses[number]
    if not size:
        return
    if not image.text_size:
        says = "Alternative calls provided, but no .text"
        report.refuse(Rule.ALTERNATIVE_CALLS_NO_TEXT, says, colon="")
        return
    calls: list[int] = []
    for offset in range(0, size, ALTERNATIVE_CALL_SIZE):
        call = None  # the address of the file in Xen is not known, but it is not in the payload
        if address is not None:
            at = address + offset
            call = (at + _OFFSET.unpack(image.read(at, ALTERNATIVE_CALL_SIZE))[0]) & image.machine.mask
        if call is not None and image.base <= call and call + _LENGTH <= image.base + image.text_size:
            calls.append(call)
        else:
            where = f"{image.pointer(image.base)}+{hexadecimal(image.text_size)}"
            says = f"Alternative call {image.pointer(call)}+{_LENGTH:#x} outside payload text {where}"
            report.refuse(Rule.ALTERNATIVE_CALLS_RANGE, says)
    if report.fatal and report.fatal.rule == Rule.ALTERNATIVE_CALLS_RANGE:
        return
    for call in calls:
        code = image.read(call, _LENGTH)
        if code[:2] != _CALL:
            before = f"Altcall for {image.pointer(call)} [{code.hex(' ')}] not CALL *RIPREL"
            says = "Applying alternative calls failed: -22"
            report.refuse(Rule.ALTERNATIVE_CALLS_CODE, says, before=before)
            continue
        pointer = (call + _LENGTH + _OFFSET.unpack_from(code, 2)[0]) & image.machine.mask
        # NULL is allowed: Xen then writes UD2.
        content = image.read(pointer, _POINTER.size) or state.read(pointer, _POINTER.size)
        if content == b"":
            report.crash(Rule.ALTERNATIVE_CALLS_POINTER, f"at {pointer:#x}")
