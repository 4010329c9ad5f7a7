"""lpmangle verify: payload, manifest and original against each other."""

import click

from lpmangle import elf, files, sources
from lpmangle.cli.output import print_json, shown
from lpmangle.errors import EXIT_NO, about


@click.command(
    "verify",
    help="""\b
Examples:
  lpmangle verify fbab204.livepatch
  lpmangle verify fbab204.livepatch --original build/fbab204.livepatch

    Check that PAYLOAD and its manifest agree (digests, build-id, every renamed symbol), that the
    original can be had back, and that nothing but names differs from it; a second reading by LIEF
    must agree. One line for each finding; the exit code is 1 if there is any.
    """,
)
@click.argument("payload", type=click.Path())
@click.option("-m", "--manifest", "manifest_path", type=click.Path(), metavar="FILE", help="Its manifest.")
@click.option("--original", type=click.Path(), metavar="FILE", help="The payload before it was mangled.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
@click.pass_context
def command(ctx: click.Context, payload: str, manifest_path: str | None, original: str | None, as_json: bool) -> None:
    from lpmangle.verify import findings

    file = files.read(payload)
    found = (sources.load(manifest_path) if manifest_path else sources.beside(payload)).manifest
    before = files.read(original).data if original else None
    if original and before is not None:
        with about(original):
            elf.parse(before)
    with about(payload):
        lines = list(findings(elf.parse(file.data), found, before))
    if as_json:
        print_json({"payload": payload, "verified": not lines, "findings": lines})
    else:
        for line in lines:
            click.echo(f"{shown(payload)}: {shown(line)}")
        if not lines:
            click.echo(f"{shown(payload)}: verified, {len(found.symbols)} renamed symbols, nothing else differs")
    if lines:
        ctx.exit(EXIT_NO)
