"""`.altinstructions`: livepatch.c:prepare_payload and apply_alternatives (xen/arch/{x86,arm}/alternative.c)."""

from struct import Struct

from lpmangle.errors import counted
from lpmangle.loader.findings import Report
from lpmangle.loader.image import Image, hexadecimal
from lpmangle.loader.rules import Rule
from lpmangle.loader.state import State
from lpmangle.xen.machines import X86_64

# struct alt_instr: orig_offset, repl_offset, feature, orig_len, repl_len; then pad_len and priv on x86.
_ENTRY = Struct("<iiHBB")
_LONGEST = 254  # MAX_PATCH_LEN less one
_NOT = 0x8000  # ALT_FLAG_NOT
_LIVEPATCH_FEATURE = 4  # of Arm: set where live patching is built in


def check_alternatives(image: Image, number: int, state: State, report: Report) -> None:
    """The section's size has been checked."""
    size, address = image.headers[number].size, image.addresses[number]
    if not size:
        return
    if address is None and not state.profile.unloaded_read_in_file:
        report.crash(Rule.SECTION_NOT_LOADED, ".altinstructions")
        return
    if address is not None and image.unaligned(address):
        report.crash(Rule.UNALIGNED, ".altinstructions")
        return
    if state.profile.alternatives_in_range and not _check_ranges(image, number, state, report):
        return
    entry = image.machine.alternative
    for at in range(address or 0, (address or 0) + size, entry):
        if image.machine is X86_64:
            _check_x86(image.read(at, entry), at, state, report)
        else:
            _check_arm(image.read(at, entry), state, report)


def _check_ranges(image: Image, number: int, state: State, report: Report) -> bool:
    """Whether code and replacement of every entry are in the right sections. These messages have no colon."""
    if not image.text_size:
        report.refuse(Rule.ALTERNATIVES_NO_TEXT, "Alternatives provided, but no .text", colon="")
        return False
    replacements = image.section(b".altinstr_replacement")
    if not replacements:
        says = ".altinstructions provided, but no .altinstr_replacement"
        report.refuse(Rule.ALTERNATIVES_NO_REPLACEMENT, says, colon="")
        return False
    table, start, length = image.addresses[number], image.addresses[replacements], image.headers[replacements].size
    if start is None and not state.profile.unloaded_read_in_file:
        report.crash(Rule.SECTION_NOT_LOADED, ".altinstr_replacement")
        return False
    # The address of the file in Xen is not known, but it is not in the payload.
    text, text_size, good = image.base, image.text_size, True
    content = image.file_content(number) if table is None else image.read(table, image.headers[number].size)
    for offset in range(0, len(content), image.machine.alternative):
        orig, repl, _, orig_len, repl_len = _ENTRY.unpack_from(content, offset)
        at = None if table is None else table + offset
        orig_at, repl_at = (
            None if at is None else (at + field + relative) & image.machine.mask
            for field, relative in ((0, orig), (4, repl))
        )
        if not _is_inside(orig_at, orig_len, text, text_size):
            what, whose = f"orig {image.pointer(orig_at)}+{hexadecimal(orig_len)}", "payload text"
            where = f"{image.pointer(text)}+{hexadecimal(text_size)}"
        elif not _is_inside(repl_at, repl_len, start, length):
            what, whose = f"repl {image.pointer(repl_at)}+{hexadecimal(repl_len)}", ".altinstr_replacement"
            where = f"{image.pointer(start)}+{hexadecimal(length)}"
        else:
            continue
        report.refuse(Rule.ALTERNATIVES_RANGE, f"Alternative {what} outside {whose} {where}", colon="")
        good = False
    return good


def _is_inside(address: int | None, size: int, start: int | None, length: int) -> bool:
    if address is None or start is None:
        return False
    return address >= start and size <= length and address + size <= start + length


def _check_x86(entry: bytes, at: int, state: State, report: Report) -> None:
    """What apply_alternatives assumes (BUG_ON), or refuses in newer versions."""
    orig, _, feature, orig_len, repl_len = _ENTRY.unpack_from(entry)
    whole, limit = orig_len + entry[12], 32 * state.profile.feature_words
    if state.profile.alternatives_not:
        feature &= ~_NOT
    rule, error = Rule.ALTERNATIVES_SIZE, -28
    if repl_len > whole:
        wrong = f"replacement size {repl_len:#x} larger than origin {hexadecimal(whole)}"
    elif whole > _LONGEST:
        wrong = f"origin size {whole:#x} bigger than buffer {_LONGEST:#x}"
    elif feature >= limit:
        rule, error = Rule.ALTERNATIVES_FEATURE, -34
        wrong = f"feature {feature:#x} outside of featureset range {limit:#x}"
    else:
        return
    if state.profile.alternatives_without_bug:
        # %ps prints an address: the payload's own symbols are not known yet.
        before = f"Alt for {(at + orig) & X86_64.mask:016x}, {wrong}"
        report.refuse(rule, f"applying alternatives failed: {error}", colon="", before=before)
    else:
        report.crash(Rule.ALTERNATIVES_BUG, wrong)


def _check_arm(entry: bytes, state: State, report: Report) -> None:
    """__apply_alternatives. Which features below the limit the processor has is not known."""
    _, _, feature, orig_len, repl_len = _ENTRY.unpack_from(entry)
    if feature >= state.profile.arm_features:
        report.crash(Rule.ALTERNATIVES_CALLBACK, f"feature {feature}")
    elif repl_len != orig_len:
        detail = f"replacement of {counted(repl_len, 'byte')} for {orig_len}, feature {feature}"
        if feature == _LIVEPATCH_FEATURE:
            report.crash(Rule.ALTERNATIVES_BUG, detail)
        else:
            report.not_checked(Rule.ALTERNATIVES_PROCESSOR, detail)
