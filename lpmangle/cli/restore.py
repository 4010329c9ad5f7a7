"""lpmangle restore: the original again, byte for byte."""

import click

from lpmangle.cli.output import print_json, shown
from lpmangle.cli.paths import FilePath, OutputPath, PayloadPath
from lpmangle.cli.settings import Command
from lpmangle.jobs.restore import restore_file


@click.command(
    "restore",
    cls=Command,
    help="""\b
Examples:
  lpmangle restore fbab204.livepatch
  lpmangle restore -o original.livepatch -m shipped/fbab204.manifest.json fbab204.livepatch

Turn a mangled PAYLOAD back into the original, byte for byte, in place unless -o is given. It is
refused if payload or manifest is not what lpmangle wrote.
""",
)
@click.argument("payload", type=PayloadPath())
@click.option("-m", "--manifest", "source", type=FilePath(), metavar="SOURCE", help="Where its manifest is.")
@click.option(
    "-o",
    "--output",
    type=OutputPath(folders=True),
    metavar="FILE",
    help="Write here, or into this folder; PAYLOAD stays.",
)
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
def command(payload: str, source: str | None, output: str | None, as_json: bool) -> None:
    done = restore_file(payload, source, output)
    if as_json:
        print_json({"payload": payload, "output": done.output, "status": done.status, "sha256": done.sha256})
    else:
        click.echo(f"{shown(done.place)}: {done.status}, sha256 {done.sha256}")
