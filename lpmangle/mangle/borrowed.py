"""Names that a payload borrows from those below it: undefined symbols, and functions to replace that Xen looks up."""

from collections import Counter

from lpmangle import elf
from lpmangle.errors import MangledError, PlanError, counted
from lpmangle.mangle.mark import Below, Mark, check_of
from lpmangle.mangle.plan import Outcome, Plan
from lpmangle.mangle.stack import Stack
from lpmangle.xen.abi import MAX_NAME
from lpmangle.xen.payload import Payload
from lpmangle.xen.symbols import Kind


def refer(plan: Plan, payload: Payload, stack: Stack, mark: Mark | None) -> None:
    """Give what the payload borrows from others the names that are used there; `mark` is the file's, if it is mangled.

    Raises PlanError for a mangled payload that should have other names now, and for a new name that is also new below;
    PayloadError, ElfError.
    """
    _check_unlike(plan, payload, stack)
    view, kinds, undefined = payload.elf, payload.kinds, int(Kind.UNDEFINED)
    entries = payload.looked_up
    names = [entry.name for entry in entries]
    for index, (st_name, _, _, _, _, _) in enumerate(view.symbol_fields()):
        if kinds[index] == undefined and st_name:
            names.append(name := view.string(st_name))
            if reference := stack.resolve(name):
                plan.references[index] = reference
                plan.outcomes[index] = Outcome.REFERENCE
    for entry in entries:
        if reference := stack.resolve(entry.name):
            plan.functions[entry.entry] = reference
    if plan.already:
        _check_borrowed(plan, stack, names, mark)
    borrowed = Counter(one.build_id for one in (*plan.references.values(), *plan.functions.values()))
    below = [
        Below(layer.build_id, borrowed[layer.build_id], check_of(layer.template, layer.suffix))
        for layer in stack.layers
        if layer.names
    ]
    plan.mark = plan.mark._replace(below=tuple(below))


def _check_unlike(plan: Plan, payload: Payload, stack: Stack) -> None:
    """The payloads of a stack are loaded together, so no name may be new in two of them, renamed or kept."""
    view = payload.elf
    names = {
        plan.renames.get(index) or view.symbol_name(index)[:MAX_NAME]
        for index, kind in enumerate(payload.kinds)
        if kind == Kind.NEW
    }
    for layer in stack.layers:
        if clash := names & layer.introduced:
            name = min(clash)
            raise PlanError(
                f"{elf.text(name)} would be new in it and is new in {layer.payload}: Xen refuses the second one",
                hint="give each payload a suffix of its own; the default, the build-id, is one"
                if name in plan.renames.values()
                else "it keeps this name: rename it with --scope new, without --keep or in the source",
            )


def _check_borrowed(plan: Plan, stack: Stack, names: list[bytes], mark: Mark | None) -> None:
    """The names that a mangled payload borrows must still be used below; `names` are all that it may borrow."""
    there = {one.build_id: one.borrowed for one in mark.below} if mark else {}
    again = "restore the original first (lpmangle restore), then mangle it with --against"
    made = {name for layer in stack.layers for name in layer.names.values()}
    if not mark and made.isdisjoint(names) and made:
        raise PlanError(
            "is already mangled, and was changed since by objcopy or strip: whether it should have names from the "
            "payloads below is not known",
            hint="start from the payload as the linker left it",
        )
    if plan.changes:
        raise MangledError("is already mangled, but the names that it borrows from other payloads are not", hint=again)
    for layer in stack.layers:
        if (count := there.get(layer.build_id)) is None:
            continue
        originals = {new: old for old, new in layer.names.items()}
        found = [name for name in names if name in originals]
        if count != len(found):
            raise MangledError(
                f"was mangled when the names in {layer.payload} were different: of "
                f"{counted(count, 'name')} that it borrows from there, {counted(len(found), 'fits', 'fit')}",
                hint=again,
            )
        for name in found:
            # Another stack, or the hypervisor's names, may be known now.
            if (reference := stack.resolve(originals[name])) is None or reference.name != name:
                old = elf.text(originals[name])
                raise MangledError(
                    f"is already mangled, and borrows {old} from {layer.payload}, where Xen would not find it",
                    hint=again,
                )
