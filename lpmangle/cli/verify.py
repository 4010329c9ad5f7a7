"""lpmangle verify: compare payload, manifest and original."""

from collections.abc import Iterator
from typing import Any

import click

from lpmangle.cli.batch import do_each, is_batch, read_inputs
from lpmangle.cli.output import shown
from lpmangle.cli.paths import FilePath, PayloadPath
from lpmangle.cli.reply import Reply, Wanted, entry_of
from lpmangle.cli.settings import Command
from lpmangle.errors import EXIT_NO, counted
from lpmangle.jobs.inputs import Input
from lpmangle.jobs.outputs import is_folder, output_place
from lpmangle.jobs.verify import verify_file
from lpmangle.manifest.read import Manifest
from lpmangle.verify.payload import Verification
from lpmangle.verify.signing_key import SigningKey


@click.command(
    "verify",
    cls=Command,
    help="""\b
Examples:
  lpmangle verify fbab204.livepatch
  lpmangle verify fbab204.livepatch --original build/fbab204.livepatch
  lpmangle verify -q -m shipped.db build/*.livepatch

Check that each PAYLOAD and its manifest agree in every field (options, digests, build-id, every
symbol), that the original can be recovered, and that only names differ from it. LIEF, a second ELF
reader, must agree. Each finding is one line; the exit code is 1 if there is any.
If objcopy rewrote a payload, for example to sign it, its contents are compared: a signature is
mentioned, any other difference is a finding. Bytes that were appended and another file name are
mentioned but ignored. If SOURCE is a folder, a catalog or a server, the manifests of the payloads
below must agree as well. Loading LIEF takes half a second: name many PAYLOADs in one call.
""",
)
@click.argument("payloads", nargs=-1, required=True, type=PayloadPath(lists=True), metavar="PAYLOAD...")
@click.option("-m", "--manifest", "source", type=FilePath(), metavar="SOURCE", help="Where the manifests are.")
@click.option(
    "--original",
    type=FilePath(),
    metavar="FILE",
    help="The payload before it was mangled, or a folder with a file of the same name.",
)
@click.option("--key", type=FilePath(), metavar="PUBLIC", help="Check the signature with this public key (PEM), too.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print only errors and differences.")
@click.pass_context
def command(
    ctx: click.Context,
    payloads: tuple[str, ...],
    source: str | None,
    original: str | None,
    key: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    several = is_batch(payloads)
    inputs = read_inputs(payloads, None)
    if several and original and not is_folder(original):
        raise click.UsageError("with several payloads, --original must be the folder with all originals")

    public = SigningKey.read(key) if key else None

    def work(payload: Input) -> Reply:
        before = output_place(original, payload.path) if original else None
        done = verify_file(payload.path, source, before, public)
        lines = [] if as_json else list(_lines(payload.path, done, quiet))
        status, code = ("verified", 0) if done.verified else ("differs", EXIT_NO)
        what = {
            "verified": done.verified,
            "findings": done.findings,
            "appended_bytes": done.appended_bytes,
            "since": done.since or None,
            "signature": done.signature and done.signature.status,
        }
        return Reply(status, lines, [], _entry(payload.path, status, code, **what), code)

    ctx.exit(do_each(inputs, work, _entry, Wanted(as_json, quiet=quiet), summary=several))


def _entry(payload: str, status: str, exit_code: int = 0, **what: object) -> dict[str, Any]:
    """What the report says about one payload: always the same keys."""
    nothing: dict[str, Any] = {
        "verified": False,
        "findings": [],
        "appended_bytes": 0,
        "since": None,
        "signature": None,
    }
    return entry_of(payload, status, exit_code) | nothing | what


def _lines(payload: str, done: Verification, quiet: bool) -> Iterator[str]:
    if quiet and done.verified:
        return
    if done.appended:
        yield f"{shown(payload)}: {done.appended} since; without that:"
    if done.since and not done.verified:
        yield f"{shown(payload)}: {done.since}"
    for line in done.findings:
        yield f"{shown(payload)}: {shown(line)}"
    if done.signature:
        yield f"{shown(payload)}: {shown(done.signature.words)}"
    if done.verified:
        since = done.since and f"; {shown(done.since)}"
        yield f"{shown(payload)}: verified, {_renamed(done.manifest)}, nothing else differs{since}"


def _renamed(manifest: Manifest) -> str:
    words = counted(len(manifest.symbols), "renamed symbol")
    borrowed = counted(len(manifest.borrowed), "name")
    return f"{words}, {borrowed} borrowed from other payloads" if manifest.borrowed else words
