"""`.altinstructions`: livepatch.c:prepare_payload and apply_alternatives (xen/arch/{x86,arm}/alternative.c)."""

from struct import Struct

from lpmangle.loader.image import Image
from lpmangle.loader.rules import Report, Rule
from lpmangle.loader.state import State
from lpmangle.xen.machines import X86_64

# struct alt_instr: orig_offset, repl_offset, cpuid, orig_len, repl_len; then pad_len and priv on x86.
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
    entry = image.machine.alternative or 1
    if state.profile.alternatives_in_range and not _check_ranges(image, address, size, entry, report):
        return
    if image.machine is X86_64:
        for at in range(address, address + size, entry):
            _check_entry(image.read(at, entry), state, report)


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
            where = f"{text:016x}+{_hex(text_size)}"
            report.refuse(
                Rule.ALTERNATIVES_RANGE,
                f"Alternative orig {orig:016x}+{_hex(orig_len)} outside payload text {where}",
                colon="",
            )
            good = False
        elif repl < start or repl_len > length or repl + repl_len > start + length:
            where = f"{start:016x}+{_hex(length)}"
            report.refuse(
                Rule.ALTERNATIVES_RANGE,
                f"Alternative repl {repl:016x}+{_hex(repl_len)} outside .altinstr_replacement {where}",
                colon="",
            )
            good = False
    return good


def _check_entry(entry: bytes, state: State, report: Report) -> None:
    """What apply_alternatives takes for granted, or since the early check of xen_depends refuses."""
    _, _, feature, orig_len, repl_len = _ENTRY.unpack_from(entry)
    whole, refuses = orig_len + entry[12], state.profile.alternatives_without_bug
    if state.profile.alternatives_not:
        feature &= ~_NOT
    if repl_len > whole or whole > _LONGEST:
        detail = f"replacement of {repl_len} bytes for {whole}"
        if refuses:
            report.refuse(Rule.ALTERNATIVES_SIZE, "applying alternatives failed: -28", detail, colon="")
        else:
            report.crash(Rule.ALTERNATIVES_BUG, detail)
    elif feature >= 32 * state.profile.feature_words:
        if refuses:
            report.refuse(
                Rule.ALTERNATIVES_FEATURE, "applying alternatives failed: -34", f"feature {feature}", colon=""
            )
        else:
            report.crash(Rule.ALTERNATIVES_BUG, f"CPU feature {feature}")


def _hex(number: int) -> str:
    return f"{number:#x}" if number else "0"
