"""lpmangle [mangle]: rename, prove, write."""

import os
from collections.abc import Iterator
from typing import Any

import click

from lpmangle.cli.output import print_json, print_table, shown, warn
from lpmangle.job import Result, mangle_file
from lpmangle.naming import DEFAULT_SUFFIX, DEFAULT_TEMPLATE
from lpmangle.plan import REASONS, SCOPES, Options
from lpmangle.xen import Kind


@click.command(
    "mangle",
    help="""\b
Examples:
  lpmangle fbab204.livepatch
  lpmangle --suffix buildid:12 --scope new -o out/fbab204.livepatch fbab204.livepatch
  lpmangle --dry-run --json fbab204.livepatch

    Rename the symbols of PAYLOAD that Xen would count as new, in place unless -o is given, and write
    the manifest that maps the names back beside it (PAYLOAD.manifest.json).
    """,
)
@click.argument("payload", type=click.Path())
@click.option(
    "--suffix",
    default=DEFAULT_SUFFIX,
    metavar="SPEC",
    help="What makes the names unique: buildid (default), buildid:N (its first N digits, N >= 7), "
    "name (the payload's file name without its ending), text:STRING.",
)
@click.option(
    "--template",
    default=DEFAULT_TEMPLATE,
    metavar="TEMPLATE",
    help="How a new name is made of {symbol} (or {file} and {name}: what stands before and after the "
    f"last '#') and {{suffix}}. Default: {DEFAULT_TEMPLATE}",
)
@click.option(
    "--scope",
    type=click.Choice(SCOPES),
    default="local",
    help="Which new symbols: the LOCAL ones (default), or all (new), GLOBAL and WEAK too.",
)
@click.option("--only", multiple=True, metavar="GLOB", help="Rename only symbols that fit; may be repeated.")
@click.option("--keep", multiple=True, metavar="GLOB", help="Leave symbols that fit alone; may be repeated.")
@click.option("-o", "--output", type=click.Path(), metavar="FILE", help="Write here; PAYLOAD stays as it is.")
@click.option(
    "--manifest",
    "manifest_path",
    type=click.Path(),
    metavar="FILE",
    help="Write the manifest here.",
)
@click.option("--dry-run", is_flag=True, help="Show what would become of each symbol; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="List the renamed symbols.")
def command(
    payload: str,
    suffix: str,
    template: str,
    scope: str,
    only: tuple[str, ...],
    keep: tuple[str, ...],
    output: str | None,
    manifest_path: str | None,
    dry_run: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    options = Options(suffix, template, scope, only, keep)
    for word in (suffix, template, *only, *keep):
        if not word.isprintable():
            raise click.UsageError(f"{shown(word)!r} is not printable text")
    if manifest_path and os.path.realpath(manifest_path) in map(os.path.realpath, (payload, output or payload)):
        raise click.UsageError("--manifest names the payload itself")
    result = mangle_file(payload, options, output, manifest_path, write=not dry_run)
    for warning in result.warnings:
        warn(payload, f"warning: {warning}")
    if as_json:
        print_json(_report(result))
    elif dry_run:
        _print_plan(result)
    else:
        _print_result(result, output or payload, verbose)


def _rows(result: Result) -> Iterator[tuple[int, str, str | None, str | None]]:
    """Index, name, new name, reason for keeping the old one; one of the last two is None."""
    for index, outcome in enumerate(result.plan.outcomes):
        new = result.plan.renames.get(index)
        name = result.name(index).decode("utf-8", "backslashreplace")
        yield index, name, new.decode() if new else None, None if new else REASONS[outcome]


def _report(result: Result) -> dict[str, Any]:
    return {
        "payload": result.path,
        "output": result.output,
        "manifest": result.manifest_path,
        "status": result.status,
        "suffix": result.plan.suffix,
        "renamed": len(result.plan.renames),
        "warnings": result.warnings,
        "symbols": [
            {"index": index, "name": name, "new_name": new, "reason": reason}
            for index, name, new, reason in _rows(result)
        ],
    }


def _print_plan(result: Result) -> None:
    rows: list[tuple[str, ...]] = [("SYMBOL", "NAME", "NEW NAME, OR WHY NOT")]
    for index, name, new, reason in _rows(result):
        rows.append((str(index), shown(name) or "-", shown(new) if new else f"({reason})"))
    print_table(rows)
    outcomes = result.plan.outcomes
    click.echo(
        f"{shown(result.path)}: {len(outcomes)} symbols, {len(result.plan.renames)} to rename, "
        f"{outcomes.count(Kind.OVERRIDING)} overriding; {result.status if result.plan.already else 'nothing written'}"
    )


def _print_result(result: Result, output: str, verbose: bool) -> None:
    if result.status == "mangled":
        count = len(result.plan.renames)
        click.echo(f"{shown(output)}: {count} symbol{'s' * (count != 1)} renamed, suffix {result.plan.suffix}")
    else:
        click.echo(f"{shown(output)}: {result.status}")
    if verbose:
        for _, name, new, _ in _rows(result):
            if new:
                click.echo(f"  {shown(name)} -> {shown(new)}")
        click.echo(f"  manifest: {shown(result.manifest_path)}")
