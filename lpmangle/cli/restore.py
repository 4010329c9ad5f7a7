"""lpmangle restore: back to the original, byte for byte."""

from typing import Any

import click

from lpmangle.cli.batch import do_each, is_batch, read_inputs
from lpmangle.cli.output import shown
from lpmangle.cli.paths import FilePath, OutputPath, PayloadPath
from lpmangle.cli.reply import Reply, Wanted, entry_of
from lpmangle.cli.settings import Command
from lpmangle.jobs.inputs import Input
from lpmangle.jobs.restore import restore_file


@click.command(
    "restore",
    cls=Command,
    help="""\b
Examples:
  lpmangle restore fbab204.livepatch
  lpmangle restore -o original.livepatch -m shipped/fbab204.manifest.json fbab204.livepatch
  lpmangle restore -m shipped.db -o originals/ build/*.livepatch

Turn mangled PAYLOADs back into the originals, byte for byte, in place unless -o is given; even if
they were signed since. If the digest of the result is not that of the original, the payload is
refused; the others are still restored. @FILE is a list of payloads, one on each line.
""",
)
@click.argument("payloads", nargs=-1, required=True, type=PayloadPath(lists=True), metavar="PAYLOAD...")
@click.option("-m", "--manifest", "source", type=FilePath(), metavar="SOURCE", help="Where the manifests are.")
@click.option(
    "-o",
    "--output",
    type=OutputPath(folders=True),
    metavar="FILE",
    help="Write to this file or folder, and leave PAYLOAD as it is. Several payloads need a folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print only errors.")
@click.pass_context
def command(
    ctx: click.Context, payloads: tuple[str, ...], source: str | None, output: str | None, as_json: bool, quiet: bool
) -> None:
    several = is_batch(payloads)
    inputs = read_inputs(payloads, output if several else None)

    def work(payload: Input) -> Reply:
        done = restore_file(payload.path, source, output, payload.links)
        lines = [] if as_json or quiet else [f"{shown(done.place)}: {done.status}, sha256 {done.sha256}"]
        return Reply(done.status, lines, [], _entry(payload.path, done.status, output=done.output, sha256=done.sha256))

    ctx.exit(do_each(inputs, work, _entry, Wanted(as_json, quiet=quiet), summary=several))


def _entry(payload: str, status: str, exit_code: int = 0, **what: object) -> dict[str, Any]:
    """What the report says about one payload: always the same keys."""
    nothing: dict[str, Any] = {
        "output": None,
        "sha256": None,
    }
    return entry_of(payload, status, exit_code) | nothing | what
