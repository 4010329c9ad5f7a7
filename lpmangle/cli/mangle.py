"""lpmangle [mangle]: rename, prove, write."""

from typing import Any

import click

from lpmangle.cli.commands import COMMANDS
from lpmangle.cli.mangle_one import mangle_one, what_does_not_fit
from lpmangle.cli.mangle_options import OPTIONS
from lpmangle.cli.options import add_options, read_options
from lpmangle.cli.output import print_line
from lpmangle.cli.paths import PayloadPath
from lpmangle.cli.reply import Wanted
from lpmangle.cli.settings import Command, is_typed, origin_lines


class _Command(Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if command := next(filter(COMMANDS.__contains__, given), None):
                words = f"{error.format_message()} If you mean the command {command!r}, put it first."
                raise click.NoSuchOption(error.option_name, words, ctx=ctx) from None
            raise


@click.command(
    "mangle",
    cls=_Command,
    help="""\b
Examples:
  lpmangle fbab204.livepatch
  lpmangle --suffix buildid:12 --scope new -o out/fbab204.livepatch fbab204.livepatch
  lpmangle --dry-run --json fbab204.livepatch
  lpmangle -j 4 build/*.livepatch
  lpmangle --against fbab204.livepatch --xen xen-syms on-top-of-it.livepatch
  find build -name '*.livepatch' >list; lpmangle @list

Rename the symbols of PAYLOAD that Xen would count as new, in place unless -o is given. Write beside
it the manifest that maps the new names back (PAYLOAD.manifest.json). If one of several PAYLOADs
fails, the others are still mangled, and the exit code is the highest. Several paths to one file are
one PAYLOAD, named after that file. @FILE is a list of payloads, one on each line (@- is stdin).
""",
)
@click.argument("payloads", nargs=-1, required=True, type=PayloadPath(lists=True, default=True), metavar="PAYLOAD...")
@add_options(*OPTIONS)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    payloads: tuple[str, ...],
    jobs: int,
    fail_fast: bool,
    as_json: bool,
    verbose: bool,
    quiet: bool,
    **given: Any,
) -> None:
    if given["xen"] and not given["against"]:
        if is_typed(ctx, "xen"):
            raise click.UsageError("--xen needs --against")
        given["xen"] = None  # a setting for the payloads that need it
    options, wanted = read_options(**given), Wanted(as_json, verbose, quiet)
    several = len(payloads) > 1 or payloads[0].startswith("@")
    if words := what_does_not_fit(None if several else payloads[0], options):
        raise click.UsageError(words)
    if verbose and not (as_json or quiet):
        for line in origin_lines(ctx):
            print_line(line)
    if several:
        from lpmangle.cli.mangle_many import mangle_many  # not loaded for one

        ctx.exit(mangle_many(payloads, options, wanted, jobs, fail_fast))
    ctx.exit(mangle_one(payloads[0], options, wanted))
