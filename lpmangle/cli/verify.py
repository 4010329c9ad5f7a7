"""lpmangle verify: payload, manifest and original against each other."""

import click

from lpmangle.cli.output import print_json, shown
from lpmangle.cli.paths import FilePath, PayloadPath
from lpmangle.cli.settings import Command
from lpmangle.errors import EXIT_NO, counted
from lpmangle.jobs.verify import verify_file
from lpmangle.manifest.read import Manifest


@click.command(
    "verify",
    cls=Command,
    help="""\b
Examples:
  lpmangle verify fbab204.livepatch
  lpmangle verify fbab204.livepatch --original build/fbab204.livepatch

Check that PAYLOAD and its manifest agree in every field (options, digests, build-id, the file's
name, every symbol), that the original can be had back, and that nothing but names differs from it;
a second reading by LIEF must agree. One line for each finding; the exit code is 1 if there is any.
Of a payload that objcopy or strip has written anew it says, by name, what changed since. Bytes
appended since, such as a signature, are left out of account and mentioned. If SOURCE is a folder, a
catalog or a server, the manifests of the payloads below must agree as well.
""",
)
@click.argument("payload", type=PayloadPath())
@click.option("-m", "--manifest", "source", type=FilePath(), metavar="SOURCE", help="Where its manifest is.")
@click.option("--original", type=FilePath(), metavar="FILE", help="The payload before it was mangled.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
@click.pass_context
def command(ctx: click.Context, payload: str, source: str | None, original: str | None, as_json: bool) -> None:
    done = verify_file(payload, source, original)
    if as_json:
        print_json(
            {
                "payload": payload,
                "verified": done.verified,
                "findings": done.findings,
                "appended_bytes": done.appended_bytes,
            }
        )
    else:
        if done.appended:
            click.echo(f"{shown(payload)}: {done.appended} since; without that:")
        for line in done.findings:
            click.echo(f"{shown(payload)}: {shown(line)}")
        if done.verified:
            click.echo(f"{shown(payload)}: verified, {_renamed(done.manifest)}, nothing else differs")
    if not done.verified:
        ctx.exit(EXIT_NO)


def _renamed(manifest: Manifest) -> str:
    words = counted(len(manifest.symbols), "renamed symbol")
    taken = counted(len(manifest.taken), "name")
    return f"{words}, {taken} taken from other payloads" if manifest.taken else words
