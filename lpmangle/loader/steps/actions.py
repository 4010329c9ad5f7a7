"""What can be done with a payload that is loaded: livepatch.c:livepatch_action."""

from lpmangle.elf import text
from lpmangle.errors import counted
from lpmangle.loader import instructions
from lpmangle.loader.findings import Finding, Report
from lpmangle.loader.image import Function
from lpmangle.loader.lost_state import lost_state
from lpmangle.loader.rules import Rule
from lpmangle.loader.state import Loaded, State
from lpmangle.loader.steps.functions import rule_of_nowhere
from lpmangle.xen.abi import HOOKS_PREFIX
from lpmangle.xen.machines import ENDBR64_FORMS, X86_64

APPLY, REPLACE = "apply", "replace"
PREAPPLY_HOOK = HOOKS_PREFIX + "preapply"
_INSECURE = "SYSTEM MIGHT BE INSECURE: Replace action has been aborted after reverting ALL payloads!"


def next_action(loaded: Loaded, state: State) -> tuple[str, list[Finding]]:
    """What can be tried with a payload that was just accepted, and the findings about that; a refusal means it fails.

    `apply` requires that the payload depends on the last one applied, `replace` that it depends on the hypervisor. If
    the hypervisor's build-id is not known, the one that the payload has for it is used.
    """
    report = Report(loaded.name)
    top = state.applied[-1] if state.applied else None
    xen = (state.xen and state.xen.build_id) or loaded.xen_depends
    action = APPLY
    if top and loaded.depends == xen != top.build_id:
        action = REPLACE
        if any(payload.vetoing for payload in (loaded, *state.applied)):
            report.refuse(Rule.REPLACE_HOOKS, "REPLACE action is not supported on livepatches with vetoing hooks!")
    elif not top and not xen:
        report.not_checked(Rule.NO_HYPERVISOR_BUILD_ID, "whether the payload can be applied")
    elif loaded.depends != (top.build_id if top else xen):
        report.refuse(
            Rule.APPLY_DEPENDS,
            f"check against {top.name if top else 'hypervisor'} build-id failed",
            f"depends on {loaded.depends.hex()}, which is {_neither(top)}; apply --nodeps skips this check",
        )
    if not report.fatal:
        _act(loaded, action, state, report)
    if action == REPLACE and not report.fatal:
        _find_lost_state(loaded, state, report)
    return action, report.findings


def _find_lost_state(loaded: Loaded, state: State, report: Report) -> None:
    """Variables of the payloads that are reverted, if the new one has them, too."""
    lost = lost_state((one for before in state.applied for one in before.variables), loaded.variables, loaded.hooks)
    if lost.variables:
        report.warn(Rule.STATE_RESET, lost.words, symbol=text(lost.variables[0].name))


def _act(loaded: Loaded, action: str, state: State, report: Report) -> None:
    """The order of livepatch_do_action and apply_payload; a preapply hook comes before, in livepatch_action."""
    if loaded.fatal_hook and loaded.fatal_hook[1] == PREAPPLY_HOOK:
        report.crash(*loaded.fatal_hook)
    for function in loaded.functions:
        if function.expect[:1] and function.expect[0] & 1:
            _check_expectation(loaded, function, action, state, report)
    if loaded.fatal_hook:
        report.crash(*loaded.fatal_hook)
    for function in loaded.functions:
        if state.xen and loaded.old_address(function, state) in state.xen.init:
            report.crash(Rule.FUNC_INIT, text(loaded.string(function.name)))
    _check_writes(loaded, state, report)
    for function in loaded.functions:
        _check_deletion(loaded, function, state, report)


def _neither(top: Loaded | None) -> str:
    return f"neither {top.name}, the last one applied, nor the hypervisor" if top else "not the hypervisor"


def _check_writes(loaded: Loaded, state: State, report: Report) -> None:
    """Where apply writes. It keeps its state in .livepatch.funcs: on x86 a page fault only where CR0.WP stays set."""
    x86, profile = state.machine is X86_64, state.profile
    writes = not profile.functions_read_only and loaded.functions
    if writes and not loaded.functions_writable and (profile.write_protected or not x86):
        report.crash(Rule.FUNC_READ_ONLY, "")
    if x86:
        return
    # arch_livepatch_apply on Arm writes into a second mapping of the hypervisor, at the function's offset from _start.
    for function in loaded.functions:
        old = loaded.old_address(function, state)
        owner = next((payload for payload in state.loaded if old is not None and payload.holds(old)), None)
        if owner and (function.new_addr or function.new_size):
            report.crash(Rule.FUNC_OTHER_PAYLOAD, f"{text(loaded.string(function.name))} of {owner.name}")


def _check_deletion(loaded: Loaded, function: Function, state: State, report: Report) -> None:
    """arch_livepatch_apply: if a function begins with ENDBR64, 4 bytes less are deleted."""
    if state.machine is not X86_64 or function.new_addr or not function.new_size:
        return
    old, name = loaded.old_address(function, state), text(loaded.string(function.name))
    code = None if old is None else state.read(old, function.new_size + instructions.LONGEST)
    if not code:
        return
    kept = 4 if state.profile.endbr_kept and code[:4] in ENDBR64_FORMS else 0
    if function.new_size < kept:
        report.crash(Rule.FUNC_NOP_ENDBR, f"{name}: {counted(function.new_size, 'byte')} to delete")
        return
    end = kept
    while end < function.new_size:
        start, size = end, instructions.length(code[end:])
        if not size:
            return
        end += size
    if end > function.new_size:
        sizes = " or ".join(str(size) for size in (start, end) if size)
        report.warn(
            Rule.FUNC_NOP_INSIDE,
            f"{name}: {counted(function.new_size, 'byte is', 'bytes are')} deleted, whole instructions are {sizes}",
        )


def _check_expectation(loaded: Loaded, function: Function, action: str, state: State, report: Report) -> None:
    """livepatch_check_expectations. A replace has already reverted all others then."""
    flags, name = function.expect[0], text(loaded.string(function.name) or b"?")
    length, old = flags >> 1 & 31, loaded.old_address(function, state)
    expected = function.expect[1 : 1 + length]
    rule: Rule | None = None
    before, detail = "", f"{name}: {expected.hex()}"
    if old is None:
        report.not_checked(Rule.NO_HYPERVISOR_TABLE, f"what is expected of {detail}")
    elif flags >> 6:
        rule, detail = Rule.EXPECTATION, f"{name}: reserved bits are set"
    elif function.old_size < length:
        rule = Rule.EXPECTATION_SIZE
    else:
        actual = state.read(old, length)
        # A function that is replaced now begins with a jump.
        patched = action == APPLY and any(payload.replaces(old, state) for payload in state.applied)
        if actual is None or patched:
            report.not_checked(Rule.NO_HYPERVISOR_CODE, f"what is expected of {detail}")
        elif length and not actual:
            report.crash(rule_of_nowhere(old, state), f"{name}, at {old:#x}")
        elif actual != expected:
            rule, detail = Rule.EXPECTATION, f"{detail}, found {actual.hex()}"
            before = f"livepatch: {name}: expectation failed: expected:{expected.hex()}, actual:{actual.hex()}"
    if rule:
        says = f"expectations of {name} failed (rc=-{rule.errno}), aborting!"
        behind = (f"livepatch: {loaded.name}: {_INSECURE}",) if action == REPLACE else ()
        report.refuse(rule, says, detail, before=before, behind=behind)
