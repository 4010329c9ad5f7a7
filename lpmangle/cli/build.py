"""lpmangle build: the post-link step of livepatch-build, without a change to livepatch-build."""

import signal
from typing import TYPE_CHECKING

import click

from lpmangle.cli.mangle import Settings, mangle, say
from lpmangle.cli.options import against_option, naming_options, read_against, read_naming
from lpmangle.cli.output import shown, warn
from lpmangle.cli.paths import FilePath
from lpmangle.errors import EXIT_NO
from lpmangle.jobs.build_result import BuildResult
from lpmangle.system import files, process

if TYPE_CHECKING:
    from lpmangle.loader import State


@click.command(
    "build",
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS] --",
    help="""\b
Examples:
  lpmangle build -- livepatch-build -s xen -p fix.patch -c .config -o out --depends ID --xen-depends ID
  lpmangle build --suffix name --scope new -- livepatch-build -s xen -p fix.patch ...
  lpmangle build --check --xen xen-syms --loaded old.livepatch -- livepatch-build -s xen -p fix.patch ...
  lpmangle build --result 'patches/*.livepatch' -- make -C patches

Run COMMAND as it is, and if it succeeds, mangle the payload that it made, with the manifest beside
it. COMMAND has the terminal, the signals and the exit code as if it were called itself; if it fails
or is interrupted, nothing is mangled. The payload is where livepatch-build's options -o and -p put
it, also where env, nice, timeout, sh -c and the like run livepatch-build. For every other COMMAND
say where it is with --result. livepatch-build -k diff makes none.
""",
)
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND...")
@naming_options
@click.option(
    "--result",
    "results",
    multiple=True,
    type=FilePath(),
    metavar="FILE",
    help="The payload that COMMAND makes, or a pattern such as 'out/*.livepatch'; may be repeated.",
)
@click.option("--check", is_flag=True, help="Check what Xen will say to the result; the build fails if it refuses it.")
@click.option(
    "--xen",
    type=FilePath(),
    metavar="FILE",
    help="For --check and --against: the hypervisor's xen-syms, or /proc/xen/xensyms.",
)
@click.option(
    "--loaded",
    multiple=True,
    type=FilePath(),
    metavar="PAYLOAD",
    help="For --check: is loaded and applied; repeatable.",
)
@against_option
@click.option("--force", is_flag=True, help="Mangle a payload too that has a signature or other bytes appended.")
@click.option("--embed", is_flag=True, help="Put the manifest into the payload too, as section .debug_lpmangle.")
@click.option("-v", "--verbose", is_flag=True, help="List the renamed symbols.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but warnings and errors.")
@click.pass_context
def command(
    ctx: click.Context,
    words: tuple[str, ...],
    suffix: str,
    template: str,
    scope: str,
    only: tuple[str, ...],
    keep: tuple[str, ...],
    results: tuple[str, ...],
    check: bool,
    xen: str | None,
    loaded: tuple[str, ...],
    against: tuple[str, ...],
    force: bool,
    embed: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    options = read_naming(suffix, template, scope, only, keep)
    stack = read_against(against, xen or "")
    settings = Settings(
        options,
        dry_run=False,
        as_json=False,
        verbose=verbose,
        quiet=quiet,
        if_changed=False,
        force=force,
        embed=embed,
        against=stack,
    )
    if loaded and not check:
        raise click.UsageError("--loaded goes with --check")
    if xen and not (check or stack):
        raise click.UsageError("--xen goes with --check or --against")
    built = BuildResult(words, results)
    # Read before the build: what is wrong with them shall not show an hour later.
    state = _read_state(xen, loaded) if check else None
    if stack:
        stack.open()
    end = process.run(words)
    if end.code:
        ctx.exit(process.end_like(end.code))
    if end.stopped_by:
        # It ended well all the same, but whoever stopped us does not expect us to begin something.
        warn("", f"interrupted by {signal.Signals(end.stopped_by).name}, nothing was mangled")
        ctx.exit(process.end_like(-end.stopped_by))
    payloads = built.payloads()
    if not payloads and not quiet:
        click.echo("lpmangle: the command was not to make a payload, nothing was mangled", err=True)
    for payload in payloads:
        say(mangle(payload, settings))
        if state is not None and not _is_taken(payload, state, quiet):
            ctx.exit(EXIT_NO)


def _read_state(xen: str | None, loaded: tuple[str, ...]) -> "State":
    from lpmangle.cli.check import put_on
    from lpmangle.loader import Hypervisor, State

    state = State(Hypervisor.at(xen) if xen else None, None)
    put_on(state, loaded)
    return state


def _is_taken(path: str, state: "State", quiet: bool) -> bool:
    """Whether Xen takes the payload, by `lpmangle check`; says why not."""
    from lpmangle.cli.check_report import print_findings, says
    from lpmangle.loader import Upload, check_sequence

    (verdict,) = check_sequence([Upload.at(path, files.read(path).data)], state)
    if not verdict.good:
        warn(path, f"check: {verdict.status}: {says(verdict)}")
        print_findings(verdict)
    elif not quiet:
        click.echo(f"{shown(path)}: check: {verdict.status}")
    return verdict.good
