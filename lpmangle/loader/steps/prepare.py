"""What a payload must contain: livepatch.c:check_special_sections, check_patching_sections, prepare_payload."""

import errno

from lpmangle.elf import text
from lpmangle.errors import counted
from lpmangle.loader.findings import Report
from lpmangle.loader.image import Image
from lpmangle.loader.rules import Rule
from lpmangle.loader.state import State
from lpmangle.loader.steps.alternative_calls import check_alternative_calls
from lpmangle.loader.steps.alternatives import check_alternatives
from lpmangle.loader.steps.functions import FUNCS, check_functions
from lpmangle.xen.abi import BUILD_ID_SECTION, DEPENDS_SECTION, HOOKS_PREFIX, XEN_DEPENDS_SECTION
from lpmangle.xen.machines import ALTERNATIVE_CALL_SIZE, ARM32, X86_64
from lpmangle.xen.notes import HEADER_SIZE, parse_build_id

BUILD_ID, DEPENDS, XEN_DEPENDS = BUILD_ID_SECTION.encode(), DEPENDS_SECTION.encode(), XEN_DEPENDS_SECTION.encode()
_KINDS = (b"load", b"unload", b"preapply", b"apply", b"postapply", b"prerevert", b"revert", b"postrevert")
HOOKS = tuple(HOOKS_PREFIX.encode() + kind for kind in _KINDS)
# There may be many of the first two, only one of the others. Those before or after an action can veto it.
MANY_HOOKS = HOOKS[:2]
# The hooks that Xen calls when a payload is applied.
APPLY_HOOKS = (HOOKS[0], *HOOKS[2:5])
VETOING_HOOKS = tuple(hook for hook in HOOKS if b".pre" in hook or b".post" in hook)


def check_xen_depends_first(image: Image, state: State, report: Report) -> None:
    """check_xen_buildid, in versions that check it before everything else: in the file, not in memory."""
    name = text(XEN_DEPENDS)
    number = image.section(XEN_DEPENDS)
    if not number:
        report.refuse(Rule.SECTION_MISSING, f"section {name} is missing", name)
        return
    content = image.file_content(number)
    if len(content) > HEADER_SIZE and image.unaligned(image.headers[number].offset):
        report.crash(Rule.UNALIGNED, name)
        return
    error, build_id = parse_build_id(content, len(content), image.machine.layout.word)
    if error:
        report.refuse(Rule.NOTE_FORMAT, f"failed to parse section {name} as build-id: -{error}", name)
        return
    if state.xen and state.xen.has_build_id is False:
        report.refuse(Rule.XEN_NO_BUILD_ID, f"unable to get running Xen build-id: -{errno.ENODATA}")
    elif (found := _hypervisor_build_id(state, report)) not in (None, build_id):
        # Xen's own text has no-break spaces.
        behind = f"\xa0 livepatch: {build_id.hex()}", f"{7 * chr(0xA0)} xen: {(found or b'').hex()}"
        report.refuse(Rule.XEN_DEPENDS, "build-id mismatch:", behind=behind)
    image.xen_depends = build_id


def check_sections(image: Image, state: State, report: Report) -> None:
    """check_special_sections and check_patching_sections."""
    late = not state.profile.xen_depends_first
    for name in (DEPENDS, XEN_DEPENDS, BUILD_ID) if late else (DEPENDS, BUILD_ID):
        number = image.section(name)
        if not number:
            report.refuse(Rule.SECTION_MISSING, f"{text(name)} is missing", text(name))
        elif not image.headers[number].size:
            report.refuse(Rule.SECTION_EMPTY, f"{text(name)} is empty", text(name))
    something = False
    for name in (FUNCS, *HOOKS):
        number = image.section(name)
        if number and not image.headers[number].size:
            report.refuse(Rule.SECTION_EMPTY, f"{text(name)} is empty", text(name))
        something = something or bool(number)
    if not something:
        report.refuse(Rule.NOTHING_TO_PATCH, "Nothing to patch. Aborting...")


def prepare(image: Image, state: State, report: Report) -> None:
    """prepare_payload, in its order."""
    check_functions(image, state, report)
    _check_hooks(image, state, report)
    image.build_id = _note(image, BUILD_ID, state, report)
    if image.build_id:
        same = next((payload for payload in state.loaded if payload.build_id == image.build_id), None)
        if same:
            # Printed by debug hypervisors only ("Already loaded as %s!").
            report.refuse(Rule.BUILD_ID_LOADED, detail=f"build-id {image.build_id.hex()} is loaded as {same.name}")
    image.depends = _note(image, DEPENDS, state, report)
    if not state.profile.xen_depends_first:
        image.xen_depends = _note(image, XEN_DEPENDS, state, report)
    _check_optional(image, state, report)


def check_xen_depends(image: Image, state: State, report: Report) -> None:
    """check_xen_buildid, in versions that check it after everything except the names."""
    if image.xen_depends and state.xen and state.xen.has_build_id is False:
        report.refuse(Rule.XEN_NO_BUILD_ID)
    elif image.xen_depends and (found := _hypervisor_build_id(state, report)) not in (None, image.xen_depends):
        detail = f"made for {image.xen_depends.hex()}, running is {(found or b'').hex()}"
        report.refuse(Rule.XEN_DEPENDS, "check against hypervisor build-id failed", detail)


def section_ok(image: Image, number: int, entry: int, report: Report) -> bool:
    """Whether a section holds whole entries."""
    size = image.headers[number].size
    if size % entry:
        says = f"Wrong size {size} of {text(image.names[number])} (must be multiple of {entry})"
        report.refuse(Rule.SECTION_SIZE, says)
        return False
    return True


def _check_hooks(image: Image, state: State, report: Report) -> None:
    """Hook sections, in Xen's order. They are read when the hooks are called."""
    pointer = image.machine.pointer
    for name in HOOKS:
        number = image.section(name)
        if not number or not section_ok(image, number, pointer, report):
            continue
        size, address = image.headers[number].size, image.addresses[number]
        if name not in MANY_HOOKS and size not in (0, pointer):
            report.refuse(Rule.HOOK_COUNT, detail=f"{text(name)}: {counted(size // pointer, 'hook')}")
        elif address is None:
            # If only one hook is possible, NULL means none; otherwise the first hook is at NULL.
            if size and name in APPLY_HOOKS and (name in MANY_HOOKS or state.profile.unloaded_read_in_file):
                image.fatal_hook = image.fatal_hook or (Rule.SECTION_NOT_LOADED, text(name))
        elif size and image.unaligned(address) and name in APPLY_HOOKS:
            image.fatal_hook = image.fatal_hook or (Rule.UNALIGNED, text(name))
        elif name in VETOING_HOOKS and any(image.read(address, pointer)):
            image.vetoing = True


def _note(image: Image, name: bytes, state: State, report: Report) -> bytes:
    """The build-id in section `name`; empty, with a finding, if there is none."""
    number = image.section(name)
    if not number or not image.headers[number].size:
        return b""  # check_sections has reported it
    address, size = image.addresses[number], image.headers[number].size
    if address is not None:
        if size > HEADER_SIZE and image.unaligned(address):
            report.crash(Rule.UNALIGNED, text(name))
            return b""
        # A descriptor after an unpadded name may end a few bytes after its section.
        content = image.read(address, size + 3)
    elif size <= HEADER_SIZE or state.profile.unloaded_read_in_file:
        content = image.file_content(number)
    else:
        report.crash(Rule.SECTION_NOT_LOADED, text(name))
        return b""
    error, build_id = parse_build_id(content, size, image.machine.layout.word)
    if error:
        # Silent; the errno changed together with the early check.
        kept = error if state.profile.note_errors_kept else errno.EINVAL
        report.refuse(Rule.NOTE_FORMAT, detail=text(name), error=kept)
    return build_id


def _hypervisor_build_id(state: State, report: Report) -> bytes | None:
    if state.xen and state.xen.build_id:
        return state.xen.build_id
    report.not_checked(Rule.NO_HYPERVISOR_BUILD_ID, "whether the payload was made for the hypervisor that runs")
    return None


def _check_optional(image: Image, state: State, report: Report) -> None:
    """Sections that Xen reads if they are there, in its order."""
    machine = image.machine
    for kind in range(4 if machine is X86_64 or state.profile.arm_bug_frames_4 else 3):
        if number := image.section(b".bug_frames.%d" % kind):
            section_ok(image, number, machine.bug_frame, report)
    if (number := image.section(b".altinstructions")) and section_ok(image, number, machine.alternative, report):
        check_alternatives(image, number, state, report)
    if state.profile.alternative_calls and (number := image.section(b".alt_call_sites")):
        if machine is not X86_64:
            report.refuse(Rule.ALTERNATIVE_CALLS, "Alternative calls not supported")
        elif section_ok(image, number, ALTERNATIVE_CALL_SIZE, report):
            check_alternative_calls(image, number, state, report)
    if number := image.section(b".ex_table"):
        if machine.exception is None:
            report.refuse(Rule.EX_TABLE, "We don't support .ex_table")
        elif section_ok(image, number, machine.exception, report):
            _is_read(image, number, state, report)
    if number := image.section(b".modinfo"):
        _check_modinfo(image, number, state, report)


def _check_modinfo(image: Image, number: int, state: State, report: Report) -> None:
    size, address = image.headers[number].size, image.addresses[number]
    if not _is_read(image, number, state, report):
        return
    if size:
        last = (image.file_content(number) if address is None else image.read(address, size))[-1:]
    elif address is not None and image.machine is ARM32:
        # Xen reads data[len - 1] with a 32-bit len: here that is the byte before, elsewhere one 4 GiB away.
        last = image.read(address - 1, 1)
    else:
        last = b""
    if not last:
        report.crash(Rule.MODINFO_EMPTY, "")
    elif last != b"\0":
        report.refuse(Rule.MODINFO, "Incorrect metadata format detected")


def _is_read(image: Image, number: int, state: State, report: Report) -> bool:
    """Whether Xen can read a section at all, now and later."""
    name = text(image.names[number])
    if image.addresses[number] is not None or not image.headers[number].size:
        return True
    if state.profile.unloaded_read_in_file:
        report.warn(Rule.SECTION_IN_FILE, name)
        return True
    report.crash(Rule.SECTION_NOT_LOADED, name)
    return False
