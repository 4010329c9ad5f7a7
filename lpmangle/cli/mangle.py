"""lpmangle [mangle]: rename, prove, write."""

import os
from typing import Any

import click

from lpmangle.cli.commands import COMMANDS
from lpmangle.cli.mangle_one import attempt
from lpmangle.cli.mangle_report import report
from lpmangle.cli.options import against_option, naming_options, read_options, strict_option
from lpmangle.cli.output import print_json
from lpmangle.cli.paths import FilePath, OutputPath, PayloadPath
from lpmangle.cli.reply import Wanted, say
from lpmangle.cli.settings import Command, is_typed, origin_lines
from lpmangle.jobs.mangle import Request, below
from lpmangle.jobs.outputs import place


class _Command(Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if command := next(filter(COMMANDS.__contains__, given), None):
                words = f"{error.format_message()} If the command {command!r} is meant, it stands first."
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

Rename the symbols of PAYLOAD that Xen would count as new, in place unless -o is given, and write
the manifest that maps the names back beside it (PAYLOAD.manifest.json). Of several PAYLOADs each
is on its own: one that fails does not stop the others, and the exit code is that of the worst.
Several paths to one file are one PAYLOAD, named after that file. @FILE stands for the payloads
that FILE names, one on each line (@- reads them from stdin).
""",
)
@click.argument("payloads", nargs=-1, required=True, type=PayloadPath(lists=True), metavar="PAYLOAD...")
@naming_options
@click.option(
    "-o",
    "--output",
    type=OutputPath(folders=True),
    metavar="FILE",
    help="Write here, or into this folder; PAYLOAD stays as it is. Several payloads need a folder.",
)
@click.option(
    "--manifest",
    type=OutputPath(folders=True),
    metavar="FILE",
    help="Write the manifest here, or into this folder.",
)
@click.option("--depfile", type=OutputPath(), metavar="FILE", help="With -o: write the rule 'FILE: PAYLOAD' for make.")
@click.option("--if-changed", is_flag=True, help="Leave files alone, and their times, that would be what they are.")
@click.option("--force", is_flag=True, help="Mangle a payload too that is signed, or has bytes appended.")
@click.option("--embed", is_flag=True, help="Put the manifest into the payload too, as section .debug_lpmangle.")
@against_option
@click.option(
    "--xen",
    type=FilePath(),
    metavar="FILE",
    help="For --against: the hypervisor's xen-syms, or a copy of /proc/xen/xensyms; what is there stays.",
)
@click.option("-j", "--jobs", type=click.IntRange(min=1), default=1, metavar="N", help="Use N processes (default: 1).")
@click.option("--fail-fast", is_flag=True, help="Begin no other payload after one that fails.")
@strict_option
@click.option("--dry-run", is_flag=True, help="Show what would become of each symbol; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="List the renamed symbols.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but warnings and errors.")
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
            raise click.UsageError("--xen goes with --against")
        given["xen"] = None  # a setting for the payloads that need it
    options, wanted = read_options(**given), Wanted(as_json, verbose, quiet)
    if options.depfile and not options.output:
        raise click.UsageError("--depfile needs -o: a payload that is mangled in place depends on nothing else")
    if verbose and not (as_json or quiet):
        for line in origin_lines(ctx):
            click.echo(line)
    if len(payloads) > 1 or payloads[0].startswith("@"):
        from lpmangle.cli.mangle_many import mangle_many  # not loaded for one

        if options.manifest or options.depfile:
            raise click.UsageError("--manifest and --depfile go with a single payload")
        ctx.exit(mangle_many(payloads, options, wanted, jobs, fail_fast))
    (payload,) = payloads
    for option, path in (("--manifest", options.manifest), ("--depfile", options.depfile)):
        if path and os.path.realpath(path) in map(os.path.realpath, (payload, place(options.output, payload))):
            raise click.UsageError(f"{option} names the payload itself")
    reply = attempt(Request(payload, options, below(options)), wanted)
    say(reply)
    if as_json:
        print_json(report([reply.entry]))
    ctx.exit(reply.exit_code)
