"""What to say about a payload that was mangled: lines for people, and an entry of the JSON report."""

from lpmangle.cli.output import shown, table_lines
from lpmangle.cli.reply import entry_of
from lpmangle.elf import text
from lpmangle.errors import counted
from lpmangle.jobs.result import Result
from lpmangle.mangle.plan import REASONS, Reference
from lpmangle.system.light import Iterator
from lpmangle.system.records import TYPE_CHECKING
from lpmangle.xen.symbols import Kind

if TYPE_CHECKING:
    from typing import Any


def _rows(result: Result) -> Iterator[tuple[int, str, str | None, str | None]]:
    """Index, name, new name, reason for keeping the old one; one of the last two is None."""
    names = result.plan.names
    for index, outcome in enumerate(result.plan.outcomes):
        new = names.get(index)
        name = text(result.name(index))
        yield index, name, new.decode() if new else None, None if new else REASONS[outcome]


def _function_rows(result: Result) -> Iterator[tuple[int, str, Reference]]:
    """Entry of .livepatch.funcs, its name, its new name."""
    if result.plan.functions:
        for entry in result.payload.looked_up:
            if reference := result.plan.functions.get(entry.entry):
                yield entry.entry, entry.name.decode(), reference


def report(entries: "list[dict[str, Any]]") -> "dict[str, Any]":
    """The report of a run (docs/json.md)."""
    return {"payloads": entries}


def entry(payload: str, status: str, exit_code: int = 0, **what: object) -> "dict[str, Any]":
    """What the report says about one payload: always the same keys."""
    nothing: dict[str, Any] = {
        "output": None,
        "manifest": None,
        "suffix": None,
        "renamed": 0,
        "against": [],
        "warnings": [],
        "symbols": [],
        "functions": [],
    }
    return entry_of(payload, status, exit_code) | nothing | what


def done(result: Result) -> "dict[str, Any]":
    """The entry of a payload that did not fail."""
    references = result.plan.references
    return entry(
        result.path,
        result.status,
        output=result.output,
        manifest=result.manifest_path,
        suffix=result.plan.suffix,
        renamed=len(result.plan.renames),
        against=[layer.build_id for layer in result.stack.layers] if result.stack else [],
        warnings=result.warnings,
        symbols=[
            {"index": index, "name": name, "new_name": new, "reason": reason}
            | ({"against": references[index].build_id} if index in references else {})
            for index, name, new, reason in _rows(result)
        ],
        functions=[
            {"entry": entry, "name": name, "new_name": reference.name.decode(), "against": reference.build_id}
            for entry, name, reference in _function_rows(result)
        ],
    )


def plan_lines(result: Result) -> Iterator[str]:
    """The new name of each symbol, or why it keeps its name, as a table."""
    rows: list[tuple[str, ...]] = [("SYMBOL", "NAME", "NEW NAME, OR WHY NOT")]
    for index, name, new, reason in _rows(result):
        rows.append((str(index), shown(name) or "-", shown(new) if new else f"({reason})"))
    for entry, name, reference in _function_rows(result):
        rows.append((f"func {entry}", shown(name), shown(reference.name)))
    yield from table_lines(rows)
    outcomes = result.plan.outcomes
    yield (
        f"{shown(result.path)}: {counted(len(outcomes), 'symbol')}, {len(result.plan.renames)} to rename, "
        f"{outcomes.count(Kind.OVERRIDING)} overriding; {result.status if result.plan.already else 'nothing written'}"
    )
    yield from _stack_lines(result)


def result_lines(result: Result, *, verbose: bool) -> Iterator[str]:
    """What was done, in words; with each renamed symbol if `verbose`."""
    if result.status == "mangled":
        count = counted(len(result.plan.renames), "symbol")
        again = " (was mangled in another way; restored first)" if result.restored else ""
        yield f"{shown(result.place)}: {count} renamed, suffix {result.plan.suffix}{again}"
    else:
        yield f"{shown(result.place)}: {result.status}"
    yield from _stack_lines(result)
    if verbose:
        for _, name, new, _ in _rows(result):
            if new:
                yield f"  {shown(name)} -> {shown(new)}"
        for entry, name, reference in _function_rows(result):
            yield f"  {shown(name)} -> {shown(reference.name)} (entry {entry} of .livepatch.funcs)"
        yield f"  manifest: {shown(result.manifest_path)}"


def _stack_lines(result: Result) -> Iterator[str]:
    """What is borrowed from which payload, highest first."""
    plan, stack = result.plan, result.stack
    if stack is None or plan.already:
        return
    for layer in reversed(stack.layers):
        symbols = sum(one.build_id == layer.build_id for one in plan.references.values())
        functions = sum(one.build_id == layer.build_id for one in plan.functions.values())
        borrowed = [counted(symbols, "undefined symbol")] * bool(symbols)
        borrowed += [counted(functions, "function to replace", "functions to replace")] * bool(functions)
        what = "not mangled" if not layer.names else f"borrowed from it: {' and '.join(borrowed) or 'nothing'}"
        yield f"  on {shown(layer.payload)}, build-id {layer.build_id}, {what}"
    if stack.hypervisor is None and (plan.references or plan.functions):
        yield "  (Xen looks at the hypervisor's own symbols first; without --xen they are not known)"
