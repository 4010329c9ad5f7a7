"""lpmangle retrace: the original names in a log."""

import gc
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial

import click

from lpmangle.cli.options import sources_option
from lpmangle.cli.output import error_lines, print_message, shown
from lpmangle.cli.paths import FilePath
from lpmangle.cli.settings import Command
from lpmangle.errors import FileError, LpmangleError, counted
from lpmangle.store.open import open_sources, with_servers
from lpmangle.trace.lookup import Candidate, Lookup
from lpmangle.trace.missed import MAX_BUILD_IDS, Missed, Place, Reason
from lpmangle.trace.retrace import Retracer, copy

# Makes the names that were put back stand out on a terminal.
HIGHLIGHT = (b"\x1b[1;32m", b"\x1b[m")
Write = Callable[[list[bytes]], None]
Copy = Callable[[str, int, Write, Retracer], None]
# The report names at most this many build-ids.
MOST_IDS = 20
# The most that one call accepts (IOV_MAX).
MOST_PIECES = 1024
# What is wrong with names that were not put back, and what to do.
_WORDS = {
    Reason.NO_SUCH_NAME: (
        "no payload with {its} build-id has such a name",
        "the start of the name was cut off, or is on the line before: get the log with whole lines",
    ),
    Reason.WRAPPED: ("a line break is in {its} build-id", "get the log with whole lines"),
    Reason.WIDE: ("{it} in UTF-16", "convert the log first: iconv -f UTF-16 -t UTF-8"),
}


@click.command(
    "retrace",
    cls=Command,
    help="""\b
Examples:
  xl dmesg | lpmangle retrace -m fbab204.livepatch
  tail -f console.log | lpmangle retrace -m shipped/ --annotate
  lpmangle retrace -m catalog.db --source-lines console.log
  lpmangle retrace -m catalog.db -o readable.log console.log

Copy FILEs, or stdin, to stdout, and replace every mangled symbol by its original. Everything else is
copied byte for byte, line by line as it comes, even if a SOURCE cannot be used. Names that look
mangled but are in no manifest, or are incomplete, are reported on stderr at the end.
""",
)
@click.argument("paths", nargs=-1, type=FilePath(log=True), metavar="[FILE]...")
@sources_option
@click.option("--annotate", is_flag=True, help="Keep the mangled name, in parentheses after the original.")
@click.option(
    "--source-lines",
    is_flag=True,
    help="Add FILE:LINE after SYMBOL+0xOFFSET, found by addr2line in the payload beside the manifest or "
    "from debuginfod.",
)
@click.option(
    "--debug-file",
    "debug_files",
    multiple=True,
    type=FilePath(),
    metavar="FILE",
    help="For --source-lines: where the debug information is, the payload before strip, or a folder with such "
    "*.livepatch or *.debug files; may be repeated.",
)
@click.option(
    "-o",
    "--output",
    type=FilePath(),
    metavar="FILE",
    help="Write to FILE, line by line as the log comes. An existing log is overwritten.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Write an object for each line: its text, and each name that was put back with original, payload, build-id, "
    "and with --source-lines file and line.",
)
@click.pass_context
def command(
    ctx: click.Context,
    paths: tuple[str, ...],
    words: tuple[str, ...],
    annotate: bool,
    source_lines: bool,
    debug_files: tuple[str, ...],
    output: str | None,
    as_json: bool,
) -> None:
    gc.disable()  # nothing here makes cycles, and searching for them takes a fifth of the time
    failed: list[LpmangleError] = []  # sources; the log is copied all the same
    sources = open_sources(words, failed)
    lookup = Lookup(sources)
    for line in [line for error in failed for line in error_lines(error)[0]]:
        click.echo(line, err=True)
    status = max((error.exit_code for error in failed), default=0)
    told = len(failed)
    lines = None
    if source_lines or debug_files:
        from lpmangle.trace.source_lines import Lines  # reads payloads, starts addr2line

        lines = Lines(with_servers(sources) if words else sources, debug_files, lookup.trouble)
    line_of = lines.line_of if lines else None
    records = None
    if as_json:
        from lpmangle.cli.log_records import Records  # seldom asked for

        records = Records()
    retracer = Retracer(
        lookup,
        annotate=annotate,
        line_of=line_of,
        tell_ambiguous=_tell_ambiguous,
        tell_found=records.found if records else None,
        highlight=HIGHLIGHT if not (as_json or output) and _is_colourful() else None,
    )
    write = _write
    if output:
        from lpmangle.cli.log_file import open_log  # seldom asked for

        write = partial(_write, path=output, fd=open_log(output, [path for path in paths if path != "-"]))
    try:
        _copy_all(paths or ("-",), retracer, write, records.copy if records else copy)
    except BrokenPipeError:
        # The reader has gone, and wants neither the rest nor the report.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    except KeyboardInterrupt:
        report(retracer.missed)  # the only end that `tail -f` has
        raise
    finally:
        if lines:
            lines.close()
    for trouble in [*failed[told:], *lookup.trouble]:
        _tell_trouble(trouble)
    report(retracer.missed)
    ctx.exit(status)


def _is_colourful() -> bool:
    """Whether stdout is a terminal that shows colours to somebody who wants them."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    return wanted and sys.stdout is not None and sys.stdout.isatty()


def _copy_all(paths: Sequence[str], retracer: Retracer, write: Write, copy: Copy) -> None:
    for path in paths:
        try:
            # -1: it is closed, and its number may belong to another file now
            stdin = sys.stdin.fileno() if sys.stdin else -1
            fd = stdin if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            copy("" if path == "-" else path, fd, write, retracer)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise FileError(f"cannot read: {error.strerror}", path=path) from None
        if path != "-":
            os.close(fd)


def _write(pieces: list[bytes], path: str = "", fd: int | None = None) -> None:
    """To stdout, or the file at `path`, at once: somebody may be waiting for this line at the other end of a pipe."""
    if not pieces:
        return
    try:
        if fd is None:
            fd = sys.stdout.fileno() if sys.stdout else -1
        if len(pieces) > MOST_PIECES:
            pieces = [b"".join(pieces)]
        written = os.writev(fd, pieces)
        if written < sum(map(len, pieces)):
            view = memoryview(b"".join(pieces))[written:]
            while view:
                view = view[os.write(fd, view) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FileError(f"cannot {'write' if path else 'print'}: {error.strerror}", path=path) from None


def _tell_ambiguous(name: bytes, candidates: list[Candidate]) -> None:
    print_message("", f"{shown(name)} has several meanings and is left as it is:")
    for candidate in candidates:
        build_id = candidate.build_id or "(none)"
        click.echo(f"  {shown(candidate.original)}: {shown(candidate.payload)}, build-id {shown(build_id)}", err=True)


def _tell_trouble(error: LpmangleError) -> None:
    print_message(error.path, f"warning: {error.message}")


def report(missed: Missed) -> None:
    """What was not put back, on stderr."""
    _report_unknown(missed)
    _report_missed(missed)


def _report_unknown(missed: Missed) -> None:
    unknown = sorted(missed.unknown.items(), key=lambda item: -item[1].times)
    if not unknown:
        return
    more = "" if len(unknown) < MAX_BUILD_IDS else " at least"
    ids = counted(len(unknown), "build-id")
    print_message("", f"{_names(missed.unknown_times)} with{more} {ids} in no manifest:")
    for build_id, (count, first) in unknown[:MOST_IDS]:
        click.echo(f"  {build_id.decode()}: {count}, such as {shown(first.name)} ({_where(first)})", err=True)
    if len(unknown) > MOST_IDS:
        click.echo(f"  and {counted(len(unknown) - MOST_IDS, 'more build-id')}", err=True)
    click.echo("  hint: name the manifests of these payloads with -m", err=True)


def _report_missed(missed: Missed) -> None:
    for kind, times in missed.times.items():
        if not times:
            continue
        what, hint = _WORDS[kind]
        were, words = (
            ("was", {"its": "its", "it": "it is"}) if times == 1 else ("were", {"its": "their", "it": "they are"})
        )
        print_message("", f"{_names(times)} {were} not put back: {what.format(**words)}:")
        for place in missed.places[kind]:
            click.echo(f"  {_where(place)}: {shown(place.name)}", err=True)
        if times > len(missed.places[kind]):
            click.echo(f"  and {times - len(missed.places[kind])} more", err=True)
        click.echo(f"  hint: {hint}", err=True)
    for path in missed.wide_inputs:
        print_message(path, "begins with a byte-order mark of UTF-16; no names are found in UTF-16")
        click.echo(f"  hint: {_WORDS[Reason.WIDE][1]}", err=True)


def _names(count: int) -> str:
    return counted(count, "name")


def _where(place: Place) -> str:
    """`line 7`, or `console.log, line 7`."""
    return f"{shown(place.path)}, {place.where}" if place.path else place.where
