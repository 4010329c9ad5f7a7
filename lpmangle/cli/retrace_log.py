"""Puts the original names back into logs, as `lpmangle retrace` was asked to, and reports what was not put back."""

import gc
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial

from lpmangle.cli.common_retrace import RetraceCall
from lpmangle.cli.log_file import STDIN, check_stdout, open_log
from lpmangle.cli.output import error_lines, print_line, print_message, shown
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


def put_back(call: RetraceCall) -> int:
    """Copy the logs with the original names, and say what was not put back. Returns the exit code."""
    gc.disable()  # nothing here makes cycles, and searching for them takes a fifth of the time
    failed: list[LpmangleError] = []  # sources; the log is copied all the same
    sources = open_sources(call.words, failed)
    lookup = Lookup(sources)
    for line in [line for error in failed for line in error_lines(error)[0]]:
        print_line(line, err=True)
    status = max((error.exit_code for error in failed), default=0)
    told = len(failed)
    lines = None
    if call.source_lines or call.debug_files:
        from lpmangle.trace.source_lines import Lines  # reads payloads, starts addr2line

        lines = Lines(with_servers(sources) if call.words else sources, call.debug_files, lookup.trouble)
    records = None
    if call.as_json:
        from lpmangle.cli.log_records import Records  # seldom asked for

        records = Records()
    retracer = Retracer(
        lookup,
        annotate=call.annotate,
        line_of=lines.line_of if lines else None,
        prepare=lines.prepare if lines else None,
        tell_ambiguous=_tell_ambiguous,
        tell_found=records.found if records else None,
        highlight=HIGHLIGHT if not (call.as_json or call.output) and _is_colourful() else None,
    )
    paths, write = call.paths or (STDIN,), _write
    if call.output:
        write = partial(_write, path=call.output, fd=open_log(call.output, paths))
    else:
        check_stdout(paths)
    try:
        _copy_all(paths, retracer, write, records.copy if records else copy)
    except BrokenPipeError:
        # The reader has gone, and wants neither the rest nor the report.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        report(retracer.missed)  # the only end that `tail -f` has
        raise
    finally:
        if lines:
            lines.close()
    for trouble in [*failed[told:], *lookup.trouble]:
        _tell_trouble(trouble)
    report(retracer.missed)
    return status


def _is_colourful() -> bool:
    """Whether stdout is a terminal that shows colours to somebody who wants them."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    return wanted and sys.stdout is not None and sys.stdout.isatty()


def _copy_all(paths: Sequence[str], retracer: Retracer, write: Write, copy: Copy) -> None:
    for path in paths:
        try:
            # -1: it is closed, and its number may belong to another file now
            stdin = sys.stdin.fileno() if sys.stdin else -1
            fd = stdin if path == STDIN else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            copy("" if path == STDIN else path, fd, write, retracer)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise FileError(f"cannot read: {error.strerror}", path=path) from None
        if path != STDIN:
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
        print_line(f"  {shown(candidate.original)}: {shown(candidate.payload)}, build-id {shown(build_id)}", err=True)


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
        print_line(f"  {build_id.decode()}: {count}, such as {shown(first.name)} ({_where(first)})", err=True)
    if len(unknown) > MOST_IDS:
        print_line(f"  and {counted(len(unknown) - MOST_IDS, 'more build-id')}", err=True)
    print_line("  hint: name the manifests of these payloads with -m", err=True)


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
            print_line(f"  {_where(place)}: {shown(place.name)}", err=True)
        if times > len(missed.places[kind]):
            print_line(f"  and {times - len(missed.places[kind])} more", err=True)
        print_line(f"  hint: {hint}", err=True)
    for path in missed.wide_inputs:
        print_message(path, "begins with a byte-order mark of UTF-16; no names are found in UTF-16")
        print_line(f"  hint: {_WORDS[Reason.WIDE][1]}", err=True)


def _names(count: int) -> str:
    return counted(count, "name")


def _where(place: Place) -> str:
    """`line 7`, or `console.log, line 7`."""
    return f"{shown(place.path)}, {place.where}" if place.path else place.where
