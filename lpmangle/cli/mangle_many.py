"""`lpmangle` with several payloads, or a list of them: each on its own, a bar for those who wait, a sum in the end."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator

import click

from lpmangle.cli.mangle_one import FAILED, Wanted, attempt, failed, say
from lpmangle.cli.mangle_report import entry, report
from lpmangle.cli.output import print_json, shown
from lpmangle.cli.paths import check_payload
from lpmangle.cli.progress import Progress
from lpmangle.errors import FileError, LpmangleError, counted
from lpmangle.jobs.inputs import Input, each_once
from lpmangle.jobs.mangle import Request, below
from lpmangle.jobs.outputs import place
from lpmangle.mangle.options import Options
from lpmangle.system import pool as batch

NOT_BEGUN = "not begun"


def mangle_many(words: Iterable[str], options: Options, wanted: Wanted, jobs: int, fail_fast: bool) -> int:
    """Mangle the payloads that `words` stand for; the exit code of the worst."""
    payloads = each_once(_expanded(words))
    _check_outputs(payloads, options.output)
    against = below(options)
    try:
        if against:
            against.open()
    except LpmangleError as error:
        if wanted.as_json:
            print_json(report([failed(payload.path, error).entry for payload in payloads]))
        raise
    progress = Progress(len(payloads), "payloads")
    counts: Counter[str] = Counter()
    entries = []
    worst = 0
    results = batch.run(
        payloads,
        lambda payload: attempt(Request(payload.path, options, against, payload.links), wanted),
        jobs=jobs,
        lost=lambda payload: failed(payload.path, FileError("its process was killed: not enough memory?")),
        stop=lambda reply: fail_fast and reply.exit_code != 0,
    )
    for reply in results:
        counts[reply.status] += 1
        worst = max(worst, reply.exit_code)
        if reply.out or reply.err:
            progress.clear()
            say(reply)
        entries.append(reply.entry)
        progress.show(counts.total())
    progress.clear()
    not_begun = payloads[counts.total() :]
    if wanted.as_json:
        print_json(report(entries + [entry(payload.path, NOT_BEGUN) for payload in not_begun]))
    elif not wanted.quiet:
        count_failed = counts.pop(FAILED, 0)
        ordered = [*counts.most_common(), (FAILED, count_failed), (NOT_BEGUN, len(not_begun))]
        words = ", ".join(f"{count} {status}" for status, count in ordered if count)
        click.echo(f"{counted(len(payloads), 'payload')}: {words or 'nothing to do'}")
    return worst


def _expanded(words: Iterable[str]) -> Iterator[str]:
    """The words with those that are in lists: @FILE, a payload on each line."""
    for word in words:
        if not word.startswith("@"):
            yield word
            continue
        with click.open_file(word[1:], encoding="utf-8", errors="surrogateescape") as lines:
            for path in filter(None, (line.rstrip("\n") for line in lines)):
                check_payload(path)
                yield path


def _check_outputs(payloads: list[Input], folder: str | None) -> None:
    if folder is None:
        return
    if not os.path.isdir(folder):
        raise click.UsageError("with several payloads -o is the folder to write them to, and must exist")
    outputs = Counter(place(folder, payload.path) for payload in payloads)
    for output, count in outputs.items():
        if count > 1:
            raise click.UsageError(f"{count} of the payloads would be written to {shown(output)}")
