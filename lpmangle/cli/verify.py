"""lpmangle verify: payload, manifest and original against each other."""

import click

from lpmangle import elf
from lpmangle.cli.output import print_json, shown
from lpmangle.cli.paths import FilePath
from lpmangle.elf import appended as tail
from lpmangle.errors import EXIT_NO, about
from lpmangle.manifest import embed
from lpmangle.manifest.read import Manifest
from lpmangle.store.open import of_payload
from lpmangle.system import files


@click.command(
    "verify",
    help="""\b
Examples:
  lpmangle verify fbab204.livepatch
  lpmangle verify fbab204.livepatch --original build/fbab204.livepatch

Check that PAYLOAD and its manifest agree (digests, build-id, every renamed symbol), that the
original can be had back, and that nothing but names differs from it; a second reading by LIEF
must agree. One line for each finding; the exit code is 1 if there is any. Of a payload that objcopy
or strip has written anew it says what changed since. Bytes appended since, such as a signature,
are left out of account and mentioned.
""",
)
@click.argument("payload", type=FilePath())
@click.option("-m", "--manifest", "source", type=FilePath(), metavar="SOURCE", help="Where its manifest is.")
@click.option("--original", type=FilePath(), metavar="FILE", help="The payload before it was mangled.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
@click.pass_context
def command(ctx: click.Context, payload: str, source: str | None, original: str | None, as_json: bool) -> None:
    from lpmangle.verify.findings import findings

    file = files.read(payload)
    found = of_payload(file, payload, source).manifest
    before = files.read(original).data if original else None
    if original and before is not None:
        with about(original):
            elf.parse(before)
    with about(payload):
        view = elf.parse(file.data)
        appended = tail.size(view)
        if appended:
            view = elf.parse(file.data[:-appended])
        bare = embed.without(view)
        lines = list(findings(bare, found, before))
        if view.section_named(embed.SECTION):
            from lpmangle.verify import embedded as verify_embedded

            lines = [*verify_embedded.findings(view, bare, found), *lines]
    if as_json:
        print_json({"payload": payload, "verified": not lines, "findings": lines, "appended_bytes": appended})
    else:
        if appended:
            click.echo(f"{shown(payload)}: {tail.describe(file.data, appended)} were appended since; without them:")
        for line in lines:
            click.echo(f"{shown(payload)}: {shown(line)}")
        if not lines:
            click.echo(f"{shown(payload)}: verified, {_renamed(found)}, nothing else differs")
    if lines:
        ctx.exit(EXIT_NO)


def _renamed(manifest: Manifest) -> str:
    own, taken = len(manifest.symbols), len(manifest.references) + len(manifest.functions)
    words = f"{own} renamed symbol{'s' * (own != 1)}"
    return f"{words}, {taken} name{'s' * (taken != 1)} taken from other payloads" if taken else words
