"""`lpmangle` with several payloads, or a list of them: each on its own, a bar for those who wait, a sum in the end."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import click

from lpmangle.cli.mangle import Reply, Settings, mangle, say
from lpmangle.cli.output import error_lines, print_json, shown
from lpmangle.cli.progress import Progress
from lpmangle.errors import FileError, LpmangleError
from lpmangle.system import pool as batch

FAILED, NOT_BEGUN = "failed", "not begun"


class _Payload(NamedTuple):
    path: str
    output: str | None


def mangle_many(names: Iterable[str], settings: Settings, folder: str | None, jobs: int, fail_fast: bool) -> int:
    """Mangle the payloads that `names` stand for; the exit code of the worst."""
    payloads = _with_outputs(list(_expanded(names)), folder)
    if settings.against:
        settings.against.open()
    progress = Progress(len(payloads), "payloads")
    counts: Counter[str] = Counter()
    reports = []
    worst = 0
    results = batch.run(
        payloads,
        lambda payload: _mangle(payload, settings),
        jobs=jobs,
        lost=lambda payload: _failed(payload, FileError("its process was killed: not enough memory?")),
        stop=lambda reply: fail_fast and reply.exit_code != 0,
    )
    for reply in results:
        counts[reply.status] += 1
        worst = max(worst, reply.exit_code)
        if reply.out or reply.err:
            progress.clear()
            say(reply)
        reports.append(reply.report)
        progress.show(counts.total())
    progress.clear()
    if settings.as_json:
        print_json(reports)
    elif not settings.quiet:
        failed = counts.pop(FAILED, 0)
        not_begun = len(payloads) - counts.total() - failed
        ordered = [*counts.most_common(), (FAILED, failed), (NOT_BEGUN, not_begun)]
        words = ", ".join(f"{count} {status}" for status, count in ordered if count)
        click.echo(f"{len(payloads)} payload{'s' * (len(payloads) != 1)}: {words or 'nothing to do'}")
    return worst


def _mangle(payload: _Payload, settings: Settings) -> Reply:
    try:
        return mangle(payload.path, settings, payload.output)
    except (LpmangleError, OSError, MemoryError) as error:
        return _failed(payload, error)


def _failed(payload: _Payload, error: Exception) -> Reply:
    if isinstance(error, LpmangleError) and not error.path:
        error.path = payload.path
    lines, exit_code = error_lines(error)
    hint = error.hint if isinstance(error, LpmangleError) else ""
    message = error.message if isinstance(error, LpmangleError) else str(error)
    report = {"payload": payload.path, "status": FAILED, "error": message, "hint": hint, "exit_code": exit_code}
    return Reply(FAILED, [], lines, report, exit_code)


def _expanded(names: Iterable[str]) -> Iterator[str]:
    """The names with those that are in lists: @FILE, a name on each line."""
    for name in names:
        if not name.startswith("@"):
            yield name
            continue
        with click.open_file(name[1:], encoding="utf-8", errors="surrogateescape") as lines:
            yield from filter(None, (line.rstrip("\n") for line in lines))


def _with_outputs(paths: list[str], folder: str | None) -> list[_Payload]:
    if folder is None:
        return [_Payload(path, None) for path in paths]
    if not os.path.isdir(folder):
        raise click.UsageError("with several payloads -o is the folder to write them to, and must exist")
    outputs = [os.path.join(folder, os.path.basename(path)) for path in paths]
    for output, count in Counter(outputs).items():
        if count > 1:
            raise click.UsageError(f"{count} of the payloads would be written to {shown(output)}")
    return [_Payload(path, output) for path, output in zip(paths, outputs, strict=True)]
