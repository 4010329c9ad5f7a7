"""lpmangle restore: the original again, byte for byte."""

import click

from lpmangle import elf
from lpmangle.cli.output import print_json, shown
from lpmangle.cli.paths import FilePath
from lpmangle.errors import ManifestError, about
from lpmangle.jobs.outputs import check_output
from lpmangle.manifest import embed
from lpmangle.manifest.undo import undo
from lpmangle.store.open import of_payload
from lpmangle.system import files
from lpmangle.system.files import sha256


@click.command(
    "restore",
    help="""\b
Examples:
  lpmangle restore fbab204.livepatch
  lpmangle restore -o original.livepatch -m shipped/fbab204.manifest.json fbab204.livepatch

Turn a mangled PAYLOAD back into the original, byte for byte, in place unless -o is given. It is
refused if payload or manifest is not what lpmangle wrote.
""",
)
@click.argument("payload", type=FilePath())
@click.option("-m", "--manifest", "source", type=FilePath(), metavar="SOURCE", help="Where its manifest is.")
@click.option("-o", "--output", type=FilePath(), metavar="FILE", help="Write here; PAYLOAD stays as it is.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
def command(payload: str, source: str | None, output: str | None, as_json: bool) -> None:
    file = files.read(payload)
    found = of_payload(file, payload, source).manifest
    target = files.resolve(output or payload)
    with about(payload):
        mangled = embed.without(elf.parse(file.data))
        digest = sha256(mangled.data)
        if digest == found.input.sha256:
            status, original = "is the original already", file.data
        elif digest == found.output.sha256:
            status, original = "restored", undo(mangled, found)
        else:
            raise ManifestError(
                "is not what lpmangle wrote: it was changed since, or the manifest belongs to another payload",
                hint="take the file as lpmangle left it (before signing or stripping), or its own manifest with -m",
            )
    check_output(target)
    if target != file.path or original is not file.data:
        files.replace([files.Output(target, (original,), like=file.state)], unchanged=file)
    if as_json:
        print_json({"payload": payload, "output": target, "status": status, "sha256": found.input.sha256})
    else:
        click.echo(f"{shown(output or payload)}: {status}, sha256 {found.input.sha256}")
