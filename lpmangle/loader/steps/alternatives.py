"""`.altinstructions`: livepatch.c:prepare_payload and apply_alternatives (xen/arch/{x86,arm}/alternative.c)."""

from struct import Struct

from lpmangle.errors import counted
from lpmangle.loader.image import Image
from lpmangle.loader.rules import Report, Rule
from lpmangle.loader.state import State
from lpmangle.xen.machines import X86_64

# struct alt_instr: orig_offset, repl_offset, feature, orig_len, repl_len; then pad_len and priv on x86.
_ENTRY = Struct("<iiHBB")
_LONGEST = 254  # MAX_PATCH_LEN less one
_NOT = 0x8000  # ALT_FLAG_NOT


def check_alternatives(image: Image, number: int, state: State, report: Report) -> None:
    """Where the section's size is right already."""
    size, address = image.headers[number].size, image.addresses[number]
    if not size:
        return
    if address is None:
        report.crash(Rule.SECTION_NOT_LOADED, ".altinstructions")
        return
    if image.unaligned(address):
        report.crash(Rule.UNALIGNED, ".altinstructions")
        return
    entry = image.machine.alternative
    if state.profile.alternatives_in_range and not _check_ranges(image, address, size, entry, report):
        return
    for at in range(address, address + size, entry):
        if image.machine is X86_64:
            _check_x86(image.read(at, entry), at, state, report)
        else:
            _check_arm(image.read(at, entry), state, report)


def _check_ranges(image: Image, address: int, size: int, entry: int, report: Report) -> bool:
    """Whether both code and replacement of every entry lie where they should. No colon in these messages."""
    if not image.text_size:
        report.refuse(Rule.ALTERNATIVES_NO_TEXT, "Alternatives provided, but no .text", colon="")
        return False
    number = image.section(b".altinstr_replacement")
    if not number:
        says = ".altinstructions provided, but no .altinstr_replacement"
        report.refuse(Rule.ALTERNATIVES_NO_REPLACEMENT, says, colon="")
        return False
    start, length = image.addresses[number], image.headers[number].size
    if start is None:
        report.crash(Rule.SECTION_NOT_LOADED, ".altinstr_replacement")
        return False
    text, text_size, good = image.base, image.text_size, True
    for at in range(address, address + size, entry):
        orig, repl, _, orig_len, repl_len = _ENTRY.unpack_from(image.read(at, entry))
        orig, repl = (at + orig) & image.machine.mask, (at + 4 + repl) & image.machine.mask
        if orig < text or orig_len > text_size or orig + orig_len > text + text_size:
            where = f"{image.pointer(text)}+{hexadecimal(text_size)}"
            report.refuse(
                Rule.ALTERNATIVES_RANGE,
                f"Alternative orig {image.pointer(orig)}+{hexadecimal(orig_len)} outside payload text {where}",
                colon="",
            )
            good = False
        elif repl < start or repl_len > length or repl + repl_len > start + length:
            where = f"{image.pointer(start)}+{hexadecimal(length)}"
            report.refuse(
                Rule.ALTERNATIVES_RANGE,
                f"Alternative repl {image.pointer(repl)}+{hexadecimal(repl_len)} outside .altinstr_replacement {where}",
                colon="",
            )
            good = False
    return good


def _check_x86(entry: bytes, at: int, state: State, report: Report) -> None:
    """What apply_alternatives takes for granted (BUG_ON), or in newer versions refuses."""
    orig, _, feature, orig_len, repl_len = _ENTRY.unpack_from(entry)
    whole, limit = orig_len + entry[12], 32 * state.profile.feature_words
    if state.profile.alternatives_not:
        feature &= ~_NOT
    if repl_len > whole:
        rule, error, wrong = (
            Rule.ALTERNATIVES_SIZE,
            -28,
            f"replacement size {repl_len:#x} larger than origin {hexadecimal(whole)}",
        )
    elif whole > _LONGEST:
        rule, error, wrong = Rule.ALTERNATIVES_SIZE, -28, f"origin size {whole:#x} bigger than buffer {_LONGEST:#x}"
    elif feature >= limit:
        rule, error, wrong = (
            Rule.ALTERNATIVES_FEATURE,
            -34,
            f"feature {feature:#x} outside of featureset range {limit:#x}",
        )
    else:
        return
    if state.profile.alternatives_without_bug:
        # %ps: the payload's own symbols are not known yet.
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
        detail = f"replacement of {counted(repl_len, 'byte')} for {orig_len}, where the processor has feature {feature}"
        report.crash(Rule.ALTERNATIVES_BUG, detail)


def hexadecimal(number: int) -> str:
    """`%#x`, which has no 0x before a 0."""
    return f"{number:#x}" if number else "0"
