"""lpmangle build: the post-link step of livepatch-build, without a change to livepatch-build."""

import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from lpmangle.cli.complete import command_words
from lpmangle.cli.mangle_one import reply_of
from lpmangle.cli.mangle_options import AGAINST, EMBED, FORCE, NAMING, NOTES, STRICT, WORDINESS
from lpmangle.cli.mangle_report import entry, report
from lpmangle.cli.options import add_options, read_options
from lpmangle.cli.output import print_json, print_message
from lpmangle.cli.paths import CommandText, FilePath, OutputPath, PayloadFile
from lpmangle.cli.reply import Reply, Wanted, failed, say
from lpmangle.cli.settings import Command, is_typed, origin_lines
from lpmangle.errors import LpmangleError, StoppedError
from lpmangle.jobs.build_result import BuildResult
from lpmangle.jobs.finish import Steps, check_catalog, finish
from lpmangle.jobs.mangle import Request, below
from lpmangle.jobs.outputs import check_manifest, is_folder
from lpmangle.system import process

if TYPE_CHECKING:
    from lpmangle.cli.build_check import Check
    from lpmangle.jobs.payload_command import PayloadCommand


@click.command(
    "build",
    cls=Command,
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS] --",
    help="""\b
Examples:
  lpmangle build -- livepatch-build -s xen -p fix.patch -c .config -o out --depends ID --xen-depends ID
  lpmangle build --suffix name --scope new -- livepatch-build -s xen -p fix.patch ...
  lpmangle build --check --xen xen-syms --loaded old.livepatch -- livepatch-build -s xen -p fix.patch ...
  lpmangle build --result 'patches/*.livepatch' -- make -C patches

Run COMMAND and, if it succeeds, mangle the payload that it built and write the manifest beside it.
COMMAND gets the terminal and the signals, and lpmangle exits with its exit code. If it fails or is
interrupted, nothing is mangled. livepatch-build's options -o and -p say where the payload is, also
behind env, nice, timeout, sh -c and the like. For any other COMMAND say where it is with --result.
livepatch-build -k diff builds no payload.
""",
)
@click.argument(
    "words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND...", shell_complete=command_words
)
@add_options(*NAMING)
@click.option(
    "--result",
    "results",
    multiple=True,
    type=FilePath(),
    metavar="FILE",
    help="The payload that COMMAND builds, or a pattern such as 'out/*.livepatch'; may be repeated.",
)
@click.option(
    "--manifest",
    type=OutputPath(folders=True),
    metavar="FILE",
    help="Write the manifest to this file or folder; in a folder it is called NAME-BUILDID.manifest.json, so that one "
    "folder can keep the manifests of many builds.",
)
@click.option(
    "--catalog", type=OutputPath(), metavar="FILE", help="Add the manifest to this catalog; create it if there is none."
)
@click.option(
    "--before",
    multiple=True,
    type=CommandText(),
    metavar="CMD",
    help="Run CMD before the payload is mangled, with the payload's path as the last word, for example "
    "--before 'strip -g'. May be repeated.",
)
@click.option(
    "--after",
    multiple=True,
    type=CommandText(),
    metavar="CMD",
    help="Run CMD after the payload is mangled, for example to sign it. CMD works on a copy: if it fails, "
    "nothing changes.",
)
@click.option("--check", is_flag=True, help="Check whether Xen will accept the result; the build fails if not.")
@click.option(
    "--xen",
    type=FilePath(),
    metavar="FILE",
    help="For --check and --against: the hypervisor's xen-syms, or a copy of /proc/xen/xensyms.",
)
@click.option(
    "--loaded",
    multiple=True,
    type=PayloadFile(),
    metavar="PAYLOAD",
    help="For --check: a payload that is loaded and applied already; may be repeated.",
)
@add_options(AGAINST, FORCE, EMBED, *NOTES, STRICT)
@click.option("--json", "as_json", is_flag=True, help="Report as JSON; the output of COMMAND goes to stderr.")
@add_options(*WORDINESS)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    words: tuple[str, ...],
    results: tuple[str, ...],
    catalog: str | None,
    before: tuple[str, ...],
    after: tuple[str, ...],
    check: bool,
    loaded: tuple[str, ...],
    as_json: bool,
    verbose: bool,
    quiet: bool,
    **given: Any,
) -> None:
    options, wanted = read_options(**given), Wanted(as_json, verbose, quiet)
    against = below(options)
    if loaded and not check and is_typed(ctx, "loaded"):
        raise click.UsageError("--loaded needs --check")
    if options.xen and not (check or against) and is_typed(ctx, "xen"):
        raise click.UsageError("--xen needs --check or --against")
    built = BuildResult(words, results)
    stdout = process.STDERR if as_json else process.STDOUT
    commands_before = _read_commands("--before", before, stdout) if before else []
    commands_after = _read_commands("--after", after, stdout) if after else []
    # Read before the build: a mistake in them should not show up an hour later.
    _check_places(options.manifest, catalog, built)
    checks = _read_check(options.xen, loaded) if check else None
    if against:
        against.open()
    if verbose and not (as_json or quiet):
        for line in origin_lines(ctx):
            click.echo(line)
    steps = Steps(commands_before, commands_after, checks.approve if checks else None, catalog)
    replies: list[Reply] = []
    try:
        _run(words, stdout)
        payloads = built.payloads()
        if not payloads and not quiet:
            click.echo("lpmangle: the command builds no payload; nothing was mangled", err=True)
        for path, links in payloads:
            replies.append(_finish(Request(path, options, against, links), wanted, steps, checks))
    finally:
        if as_json:  # also if the command fails: a program is waiting for it
            print_json(report([reply.entry for reply in replies]))
    ctx.exit(max((reply.exit_code for reply in replies), default=0))


def _run(words: tuple[str, ...], stdout: int) -> None:
    """Run the command; if it fails or is interrupted, we end in the same way."""
    end = process.run(words, stdout=stdout)
    if end.code:
        sys.exit(process.end_like(end.code))
    if end.stopped_by:
        # It succeeded nevertheless, but whoever stopped us does not expect us to start anything new.
        _end_stopped(end.stopped_by)


def _end_stopped(number: int, payload: str = "") -> NoReturn:
    print_message(payload, f"interrupted by {signal.Signals(number).name}, nothing was mangled")
    sys.exit(process.end_like(-number))


def _read_commands(option: str, texts: tuple[str, ...], stdout: int) -> "list[PayloadCommand]":
    from lpmangle.jobs.payload_command import PayloadCommand  # here, because it loads tempfile

    try:
        return [PayloadCommand.read(option, text, stdout) for text in texts]
    except ValueError as error:  # a quote is not closed
        raise click.UsageError(f"{option}: {error}") from None


def _read_check(xen: str | None, loaded: tuple[str, ...]) -> "Check":
    from lpmangle.cli.build_check import Check  # here, because it loads the loader's rules

    return Check(xen, loaded)


def _check_places(manifest: str | None, catalog: str | None, built: BuildResult) -> None:
    """Raises UsageError, LpmangleError."""
    if manifest and catalog and os.path.realpath(manifest) == os.path.realpath(catalog):
        raise click.UsageError("--manifest and --catalog name the same file")
    if manifest:
        if built.may_be_several and not is_folder(manifest):
            raise click.UsageError("there may be several payloads: --manifest must be a folder")
        check_manifest(manifest)
    if catalog:
        check_catalog(catalog)


def _finish(request: Request, wanted: Wanted, steps: Steps, checks: "Check | None") -> Reply:
    """Mangle one payload, all or nothing, and say what was done."""
    if checks:
        checks.verdict = None
    try:
        reply = reply_of(finish(request, steps), wanted)
    except StoppedError as error:
        _end_stopped(error.signal, request.path)
    except (LpmangleError, OSError, MemoryError) as error:
        reply = failed(request.path, error, entry)
    say(reply)
    if wanted.as_json:
        reply.entry["check"] = checks.record() if checks else None
    elif checks and not (wanted.quiet and reply.exit_code == 0):
        checks.say(request.path)
    return reply
