"""lpmangle query: names in either direction."""

from typing import Any

import click

from lpmangle import sources
from lpmangle.cli.output import print_json, shown
from lpmangle.errors import EXIT_NO
from lpmangle.manifest import Manifest, Symbol
from lpmangle.query import file_of, find


@click.command(
    "query",
    help="""\b
Examples:
  lpmangle query _get_fpu -m fbab204.livepatch
  lpmangle query 'x86_emulate.c#*' -m fbab204.livepatch.manifest.json --json
  lpmangle query x86_emulate.c#_get_fpu_d6068854...+0x32/0x3e -m fbab204.livepatch

    Look SYMBOLs up, old or new names, with or without the part before '#', exact or as shell
    patterns. Every match is shown; the exit code is 1 if a SYMBOL has none.
    """,
)
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL...")
@click.option(
    "-m",
    "--manifest",
    "paths",
    multiple=True,
    required=True,
    type=click.Path(),
    metavar="SOURCE",
    help="A manifest, or a payload with its manifest beside it; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
@click.pass_context
def command(ctx: click.Context, symbols: tuple[str, ...], paths: tuple[str, ...], as_json: bool) -> None:
    loaded = [sources.load(path).manifest for path in paths]
    missing = []
    matches: list[tuple[Manifest, Symbol]] = []
    for pattern in symbols:
        found = [(manifest, symbol) for manifest in loaded for symbol in find(manifest, pattern)]
        matches += [match for match in found if match not in matches]
        if not found:
            missing.append(pattern)
    if as_json:
        print_json({"matches": [_record(*match) for match in matches], "not_found": missing})
    else:
        for match in matches:
            _print(*match)
        for pattern in missing:
            click.echo(
                f"lpmangle: {shown(pattern)}: not renamed by any of {len(paths)} manifest(s)",
                err=True,
            )
    if missing:
        ctx.exit(EXIT_NO)


def _record(manifest: Manifest, symbol: Symbol) -> dict[str, Any]:
    return {
        "original": symbol.original,
        "name": symbol.name,
        "file": file_of(symbol) or None,
        "section": symbol.section,
        "offset": symbol.value,
        "size": symbol.size,
        "type": symbol.type,
        "binding": symbol.binding,
        "payload": manifest.payload,
        "build_id": manifest.build_id,
    }


def _print(manifest: Manifest, symbol: Symbol) -> None:
    click.echo(shown(symbol.original))
    click.echo(f"  new name  {shown(symbol.name)}")
    click.echo(f"  file      {shown(file_of(symbol)) or '(new in the patch)'}")
    click.echo(
        f"  at        {shown(symbol.section)}+{symbol.value:#x}, {symbol.size} bytes, {symbol.binding} {symbol.type}"
    )
    click.echo(f"  payload   {shown(manifest.payload)}, build-id {manifest.build_id or '(none)'}")
