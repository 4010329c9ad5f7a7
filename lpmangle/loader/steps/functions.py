"""The functions that a payload replaces: livepatch.c:prepare_payload, arch_livepatch_verify_func, _verify_distance."""

from lpmangle import elf
from lpmangle.elf import text
from lpmangle.loader.findings import Report
from lpmangle.loader.image import Function, Image
from lpmangle.loader.rules import Rule
from lpmangle.loader.state import State
from lpmangle.loader.steps.memory import did_you_mean
from lpmangle.xen.abi import EXPECTATION_SIZE, FUNCS_SECTION, LIVEPATCH_PAYLOAD_VERSION, PAGE_SIZE
from lpmangle.xen.machines import ENDBR64_FORMS, X86_64
from lpmangle.xen.payload import FUNCS_PADDED
from lpmangle.xen.relocations import sign_extended

FUNCS = FUNCS_SECTION.encode()
OPAQUE_SIZE = 31  # LIVEPATCH_OPAQUE_SIZE: what Xen can keep of the old code


def check_functions(image: Image, state: State, report: Report) -> None:
    """Every entry, one after the other."""
    machine, number = image.machine, image.section(FUNCS)
    if not number:
        return
    image.functions_writable = bool(image.headers[number].flags & elf.SHF_WRITE)
    address, size, entry = image.addresses[number], image.headers[number].size, machine.func_size
    if size % entry:
        advice = FUNCS_PADDED if size > entry else ""
        says = f"Wrong size {size} of {text(FUNCS)} (must be multiple of {entry})"
        report.refuse(Rule.SECTION_SIZE, says, advice=advice)
    elif address is not None:
        for start in range(address, address + size, entry):
            content = image.read(start, entry)
            expect = content[machine.expect_at : machine.expect_at + EXPECTATION_SIZE]
            image.functions.append(Function._make((*machine.func.unpack_from(content), expect)))
        if image.unaligned(address) and image.functions[:1] and image.functions[0].version == LIVEPATCH_PAYLOAD_VERSION:
            report.crash(Rule.UNALIGNED, text(FUNCS))
            return
        for function in image.functions:
            _check_function(image, function, state, report)
    elif size:
        report.crash(Rule.SECTION_NOT_LOADED, text(FUNCS))


def _check_function(image: Image, function: Function, state: State, report: Report) -> None:
    if function.version != LIVEPATCH_PAYLOAD_VERSION:
        report.refuse(Rule.FUNC_VERSION, f"Wrong version ({function.version}). Expected {LIVEPATCH_PAYLOAD_VERSION}")
        return
    if not function.old_size:
        report.refuse(Rule.FUNC_OLD_SIZE_ZERO, "Address or size fields are zero")
        return
    if state.profile.old_address_first:
        old = old_address(image, function, state, report)
        _verify(image, function, old, state, report)
    else:
        _verify(image, function, None, state, report)
        old = old_address(image, function, state, report)
    if old is not None and function.new_addr:
        # arch_livepatch_verify_distance: how far the jump reaches.
        distance = sign_extended(old - function.new_addr, 8 * image.machine.pointer)
        if not -image.machine.distance <= distance < image.machine.distance:
            report.refuse(Rule.FUNC_DISTANCE, detail=f"from {old:#x} to {function.new_addr:#x}")


def old_address(image: Image, function: Function, state: State, report: Report) -> int | None:
    """resolve_old_address: the address of the function to replace; None, with a finding, if it is not known."""
    if function.old_addr:
        return function.old_addr
    name = function_name(image, function, state)
    mapped = image.read(function.name, 1) or state.read(function.name, 1)
    if function.name < PAGE_SIZE or mapped == b"":
        advice = Rule.RELOC_COMPACT.remedy if image.compact_relocations else ""
        report.crash(Rule.FUNC_NAME_POINTER, f"at {function.name:#x}", advice)
        return None
    if name is None:
        report.not_checked(Rule.NO_HYPERVISOR_CODE, f"a function's name at {function.name:#x}")
        return None
    found = state.find(name)
    if found is None:
        if state.xen:
            says = f"Could not resolve old address of {text(name)}"
            report.refuse(
                Rule.FUNC_OLD_ADDRESS, says, did_you_mean(name, state, report, Rule.FUNC_OLD_ADDRESS), text(name)
            )
        else:
            report.not_checked(Rule.NO_HYPERVISOR_TABLE, f"the function to replace: {text(name)}")
    return found


def function_name(image: Image, function: Function, state: State) -> bytes | None:
    """The C string that `name` points to; None if it is not known."""
    content: bytes | None = image.read(function.name, elf.MAX_NAME_BYTES)
    if not content:
        content = state.read(function.name, elf.MAX_NAME_BYTES)
    return None if content is None else content.partition(b"\0")[0]


def _verify(image: Image, function: Function, old: int | None, state: State, report: Report) -> None:
    """arch_livepatch_verify_func. All refusals are silent."""
    detail = f"{text(function_name(image, function, state) or b'?')}: old size {function.old_size}"
    x86 = image.machine is X86_64
    if not function.new_addr:
        # Instructions are only deleted.
        if function.new_size > OPAQUE_SIZE or (not x86 and function.new_size % 4):
            report.refuse(Rule.FUNC_NOP_SIZE, detail=f"{detail}, to delete {function.new_size}")
        elif x86 and function.old_size < function.new_size:
            report.refuse(Rule.FUNC_NOP_OLD_SIZE, detail=f"{detail}, to delete {function.new_size}")
        elif not x86 and function.old_size < image.machine.jump:
            report.refuse(Rule.FUNC_OLD_SIZE, detail=detail)
        return
    need = image.machine.jump
    if x86 and state.profile.endbr_kept and old is not None:
        code = image.read(old, 4) or state.read(old, 4)
        if code in ENDBR64_FORMS:
            need += 4
        elif code is None and state.xen and need <= function.old_size < need + 4:
            report.not_checked(Rule.NO_HYPERVISOR_CODE, f"{detail}; 9 are needed if it begins with ENDBR64")
        elif code == b"":
            report.crash(rule_of_nowhere(old, state), f"{detail}, at {old:#x}")
            return
    if function.old_size < need:
        report.refuse(Rule.FUNC_OLD_SIZE, detail=f"{detail}, at least {need} are needed")


def rule_of_nowhere(old: int, state: State) -> Rule:
    """Why nothing can be read at the address of a function to replace."""
    return Rule.FUNC_INIT if state.xen and old in state.xen.init else Rule.FUNC_OLD_POINTER
