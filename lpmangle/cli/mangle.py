"""lpmangle [mangle]: rename, prove, write."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from lpmangle.cli.options import against_option, naming_options, read_against, read_naming
from lpmangle.cli.output import message_line, print_json, shown, table_lines
from lpmangle.cli.paths import FilePath
from lpmangle.elf import text
from lpmangle.jobs.mangle import Result, mangle_file
from lpmangle.mangle.plan import REASONS, Options, Reference
from lpmangle.xen.symbols import Kind

if TYPE_CHECKING:
    from lpmangle.jobs.against import Against


class Settings(NamedTuple):
    """What a user asked for, the same for every payload."""

    options: Options
    dry_run: bool
    as_json: bool
    verbose: bool
    quiet: bool
    if_changed: bool
    force: bool
    embed: bool = False
    against: "Against | None" = None


class Reply(NamedTuple):
    """What is to be said about one payload: on stdout, on stderr, as JSON."""

    status: str
    out: list[str]
    err: list[str]
    report: dict[str, Any]
    exit_code: int = 0


@click.command(
    "mangle",
    help="""\b
Examples:
  lpmangle fbab204.livepatch
  lpmangle --suffix buildid:12 --scope new -o out/fbab204.livepatch fbab204.livepatch
  lpmangle --dry-run --json fbab204.livepatch
  lpmangle -j 4 build/*.livepatch
  lpmangle --against fbab204.livepatch --xen xen-syms on-top-of-it.livepatch
  find build -name '*.livepatch' >list; lpmangle @list

Rename the symbols of PAYLOAD that Xen would count as new, in place unless -o is given, and write
the manifest that maps the names back beside it (PAYLOAD.manifest.json). Of several PAYLOADs each
is on its own: one that fails does not stop the others, and the exit code is that of the worst.
@FILE stands for the payloads that FILE names, one on each line (@- reads them from stdin).
""",
)
@click.argument("payloads", nargs=-1, required=True, type=FilePath(), metavar="PAYLOAD...")
@naming_options
@click.option(
    "-o",
    "--output",
    type=FilePath(),
    metavar="FILE",
    help="Write here; PAYLOAD stays as it is. With several payloads: the folder to write them to.",
)
@click.option("--manifest", "manifest_path", type=FilePath(), metavar="FILE", help="Write the manifest here.")
@click.option("--depfile", type=FilePath(), metavar="FILE", help="With -o: write the rule 'FILE: PAYLOAD' for make.")
@click.option("--if-changed", is_flag=True, help="Leave files alone, and their times, that would be what they are.")
@click.option("--force", is_flag=True, help="Mangle a payload too that has a signature or other bytes appended.")
@click.option("--embed", is_flag=True, help="Put the manifest into the payload too, as section .debug_lpmangle.")
@against_option
@click.option(
    "--xen",
    type=FilePath(),
    metavar="FILE",
    help="For --against: the hypervisor's xen-syms, or a copy of /proc/xen/xensyms; what is there stays.",
)
@click.option("-j", "--jobs", type=click.IntRange(min=1), default=1, metavar="N", help="Use N processes (default: 1).")
@click.option("--fail-fast", is_flag=True, help="Begin no other payload after one that fails.")
@click.option("--dry-run", is_flag=True, help="Show what would become of each symbol; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="List the renamed symbols.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but warnings and errors.")
@click.pass_context
def command(
    ctx: click.Context,
    payloads: tuple[str, ...],
    suffix: str,
    template: str,
    scope: str,
    only: tuple[str, ...],
    keep: tuple[str, ...],
    output: str | None,
    manifest_path: str | None,
    depfile: str | None,
    if_changed: bool,
    force: bool,
    embed: bool,
    against: tuple[str, ...],
    xen: str | None,
    jobs: int,
    fail_fast: bool,
    dry_run: bool,
    as_json: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    options = read_naming(suffix, template, scope, only, keep)
    if xen and not against:
        raise click.UsageError("--xen goes with --against")
    stack = read_against(against, xen or "")
    settings = Settings(options, dry_run, as_json, verbose, quiet, if_changed, force, embed, stack)
    if depfile and not output:
        raise click.UsageError("--depfile needs -o: a payload that is mangled in place depends on nothing else")
    if len(payloads) > 1 or payloads[0].startswith("@"):
        from lpmangle.cli.mangle_many import mangle_many

        if manifest_path or depfile:
            raise click.UsageError("--manifest and --depfile go with a single payload")
        ctx.exit(mangle_many(payloads, settings, output, jobs, fail_fast))
    (payload,) = payloads
    for option, path in (("--manifest", manifest_path), ("--depfile", depfile)):
        if path and os.path.realpath(path) in map(os.path.realpath, (payload, output or payload)):
            raise click.UsageError(f"{option} names the payload itself")
    reply = mangle(payload, settings, output, manifest_path, depfile)
    say(reply)
    if as_json:
        print_json(reply.report)


def mangle(
    payload: str,
    settings: Settings,
    output: str | None = None,
    manifest_path: str | None = None,
    depfile: str | None = None,
) -> Reply:
    """Mangle one payload. Raises LpmangleError."""
    result = mangle_file(
        payload,
        settings.options,
        output,
        manifest_path,
        write=not settings.dry_run,
        depfile=depfile,
        if_changed=settings.if_changed,
        force=settings.force,
        embedded=settings.embed,
        against=settings.against,
    )
    return reply_of(result, settings, output)


def reply_of(result: Result, settings: Settings, output: str | None = None) -> Reply:
    """What is to be said about a payload that is done."""
    payload = result.path
    lines: list[str] = []
    if not (settings.as_json or settings.quiet):
        lines = list(_plan_lines(result) if settings.dry_run else _result_lines(result, output or payload, settings))
    warnings = [message_line(payload, f"warning: {warning}") for warning in result.warnings]
    return Reply(result.status, lines, warnings, _report(result) if settings.as_json else {})


def say(reply: Reply) -> None:
    """Print it, all but the JSON."""
    for line in reply.err:
        click.echo(line, err=True)
    for line in reply.out:
        click.echo(line)


def _rows(result: Result) -> Iterator[tuple[int, str, str | None, str | None]]:
    """Index, name, new name, reason for keeping the old one; one of the last two is None."""
    names = result.plan.names
    for index, outcome in enumerate(result.plan.outcomes):
        new = names.get(index)
        name = text(result.name(index))
        yield index, name, new.decode() if new else None, None if new else REASONS[outcome]


def _function_rows(result: Result) -> Iterator[tuple[int, str, Reference]]:
    """Entry of .livepatch.funcs, its name, what it becomes."""
    if result.plan.functions:
        from lpmangle.mangle.function_names import by_name

        for entry in by_name(result.payload):
            if reference := result.plan.functions.get(entry.entry):
                yield entry.entry, entry.name.decode(), reference


def _report(result: Result) -> dict[str, Any]:
    references = result.plan.references
    return {
        "payload": result.path,
        "output": result.output,
        "manifest": result.manifest_path,
        "status": result.status,
        "suffix": result.plan.suffix,
        "renamed": len(result.plan.renames),
        "against": [layer.build_id for layer in result.stack.layers] if result.stack else [],
        "warnings": result.warnings,
        "symbols": [
            {"index": index, "name": name, "new_name": new, "reason": reason}
            | ({"against": references[index].build_id} if index in references else {})
            for index, name, new, reason in _rows(result)
        ],
        "functions": [
            {"entry": entry, "name": name, "new_name": reference.name.decode(), "against": reference.build_id}
            for entry, name, reference in _function_rows(result)
        ],
    }


def _plan_lines(result: Result) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [("SYMBOL", "NAME", "NEW NAME, OR WHY NOT")]
    for index, name, new, reason in _rows(result):
        rows.append((str(index), shown(name) or "-", shown(new) if new else f"({reason})"))
    for entry, name, reference in _function_rows(result):
        rows.append((f"func {entry}", shown(name), shown(reference.name)))
    yield from table_lines(rows)
    outcomes = result.plan.outcomes
    yield (
        f"{shown(result.path)}: {len(outcomes)} symbols, {len(result.plan.renames)} to rename, "
        f"{outcomes.count(Kind.OVERRIDING)} overriding; {result.status if result.plan.already else 'nothing written'}"
    )
    yield from _stack_lines(result)


def _result_lines(result: Result, output: str, settings: Settings) -> Iterator[str]:
    if result.status == "mangled":
        yield f"{shown(output)}: {_counted(len(result.plan.renames), 'symbol')} renamed, suffix {result.plan.suffix}"
    else:
        yield f"{shown(output)}: {result.status}"
    yield from _stack_lines(result)
    if settings.verbose:
        for _, name, new, _ in _rows(result):
            if new:
                yield f"  {shown(name)} -> {shown(new)}"
        for entry, name, reference in _function_rows(result):
            yield f"  {shown(name)} -> {shown(reference.name)} (entry {entry} of .livepatch.funcs)"
        yield f"  manifest: {shown(result.manifest_path)}"


def _stack_lines(result: Result) -> Iterator[str]:
    """What was taken from which payload, highest first."""
    plan, stack = result.plan, result.stack
    if stack is None or plan.already:
        return
    for layer in reversed(stack.layers):
        symbols = sum(one.build_id == layer.build_id for one in plan.references.values())
        functions = sum(one.build_id == layer.build_id for one in plan.functions.values())
        taken = [_counted(symbols, "undefined symbol")] * bool(symbols)
        taken += [_counted(functions, "function to replace", "functions to replace")] * bool(functions)
        what = "not mangled" if not layer.names else f"taken from it: {' and '.join(taken) or 'nothing'}"
        yield f"  on {shown(layer.payload)}, build-id {layer.build_id}, {what}"
    if stack.hypervisor is None and (plan.references or plan.functions):
        yield "  (the hypervisor's own symbols, which Xen looks at first, are not known: --xen)"


def _counted(count: int, one: str, several: str = "") -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"
