"""lpmangle [mangle]: rename, prove, write."""

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from lpmangle.cli.commands import COMMANDS
from lpmangle.cli.mangle_report import done, entry, plan_lines, report, result_lines
from lpmangle.cli.options import against_option, naming_options, read_against, read_naming
from lpmangle.cli.output import error_lines, message_line, print_json
from lpmangle.cli.paths import FilePath, OutputPath, PayloadPath
from lpmangle.errors import LpmangleError
from lpmangle.jobs.inputs import Input
from lpmangle.jobs.mangle import Result, mangle_file
from lpmangle.jobs.outputs import place
from lpmangle.mangle.plan import Options

if TYPE_CHECKING:
    from lpmangle.jobs.against import Against


FAILED = "failed"


class Settings(NamedTuple):
    """What a user asked for, the same for every payload."""

    options: Options
    dry_run: bool
    as_json: bool
    verbose: bool
    quiet: bool
    if_changed: bool
    force: bool
    embed: bool = False
    against: "Against | None" = None


class Reply(NamedTuple):
    """What is to be said about one payload: on stdout, on stderr, as JSON (docs/json.md)."""

    status: str
    out: list[str]
    err: list[str]
    report: dict[str, Any]
    exit_code: int = 0


class _Command(click.Command):
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
    "manifest_path",
    type=OutputPath(folders=True),
    metavar="FILE",
    help="Write the manifest here, or into this folder.",
)
@click.option("--depfile", type=OutputPath(), metavar="FILE", help="With -o: write the rule 'FILE: PAYLOAD' for make.")
@click.option("--if-changed", is_flag=True, help="Leave files alone, and their times, that would be what they are.")
@click.option("--force", is_flag=True, help="Mangle a payload too that has a signature or other bytes appended.")
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
@click.option("--dry-run", is_flag=True, help="Show what would become of each symbol; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="List the renamed symbols.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but warnings and errors.")
@click.pass_context
def command(
    ctx: click.Context,
    payloads: tuple[str, ...],
    suffix: str,
    template: str,
    scope: str,
    only: tuple[str, ...],
    keep: tuple[str, ...],
    output: str | None,
    manifest_path: str | None,
    depfile: str | None,
    if_changed: bool,
    force: bool,
    embed: bool,
    against: tuple[str, ...],
    xen: str | None,
    jobs: int,
    fail_fast: bool,
    dry_run: bool,
    as_json: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    options = read_naming(suffix, template, scope, only, keep)
    if xen and not against:
        raise click.UsageError("--xen goes with --against")
    stack = read_against(against, xen or "")
    settings = Settings(options, dry_run, as_json, verbose, quiet, if_changed, force, embed, stack)
    if depfile and not output:
        raise click.UsageError("--depfile needs -o: a payload that is mangled in place depends on nothing else")
    if len(payloads) > 1 or payloads[0].startswith("@"):
        from lpmangle.cli.mangle_many import mangle_many

        if manifest_path or depfile:
            raise click.UsageError("--manifest and --depfile go with a single payload")
        ctx.exit(mangle_many(payloads, settings, output, jobs, fail_fast))
    (payload,) = payloads
    for option, path in (("--manifest", manifest_path), ("--depfile", depfile)):
        if path and os.path.realpath(path) in map(os.path.realpath, (payload, place(output, payload))):
            raise click.UsageError(f"{option} names the payload itself")
    reply = attempt(Input(payload), settings, output, manifest_path, depfile)
    say(reply)
    if as_json:
        print_json(report([reply.report]))
    ctx.exit(reply.exit_code)


def attempt(
    payload: Input,
    settings: Settings,
    output: str | None = None,
    manifest_path: str | None = None,
    depfile: str | None = None,
) -> Reply:
    """Mangle one payload; an error is a reply as well."""
    try:
        return mangle(payload, settings, output, manifest_path, depfile)
    except (LpmangleError, OSError, MemoryError) as error:
        return failed(payload, error)


def mangle(
    payload: Input,
    settings: Settings,
    output: str | None = None,
    manifest_path: str | None = None,
    depfile: str | None = None,
) -> Reply:
    """Mangle one payload. Raises LpmangleError."""
    result = mangle_file(
        payload.path,
        settings.options,
        output,
        manifest_path,
        write=not settings.dry_run,
        depfile=depfile,
        if_changed=settings.if_changed,
        force=settings.force,
        embedded=settings.embed,
        against=settings.against,
        links=payload.links,
    )
    return reply_of(result, settings)


def reply_of(result: Result, settings: Settings) -> Reply:
    """What is to be said about a payload that is done."""
    lines: list[str] = []
    if not (settings.as_json or settings.quiet):
        lines = list(plan_lines(result) if settings.dry_run else result_lines(result, verbose=settings.verbose))
    warnings = [message_line(result.path, f"warning: {warning}") for warning in result.warnings]
    return Reply(result.status, lines, warnings, done(result) if settings.as_json else {})


def failed(payload: Input, error: Exception) -> Reply:
    """The reply that says so."""
    if isinstance(error, LpmangleError) and not error.path:
        error.path = payload.path
    lines, exit_code = error_lines(error)
    message, hint = (error.message, error.hint) if isinstance(error, LpmangleError) else (str(error), "")
    return Reply(FAILED, [], lines, entry(payload.path, FAILED, exit_code, error=message, hint=hint or None), exit_code)


def say(reply: Reply) -> None:
    """Print it, all but the JSON."""
    for line in reply.err:
        click.echo(line, err=True)
    for line in reply.out:
        click.echo(line)
