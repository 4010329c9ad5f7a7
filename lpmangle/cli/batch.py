"""The same work on several payloads, or a list of them, with a progress bar and a total at the end."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import click

from lpmangle.cli.output import print_json, shown
from lpmangle.cli.places import check_payload
from lpmangle.cli.progress import Progress
from lpmangle.cli.reply import FAILED, Reply, Wanted, attempt, failed, say
from lpmangle.errors import FileError, counted
from lpmangle.jobs.inputs import Input, each_once
from lpmangle.jobs.outputs import output_place
from lpmangle.system import pool

NOT_BEGUN = "not begun"


def is_batch(words: Sequence[str]) -> bool:
    """Whether the words of a command line are more than the path of one payload."""
    return len(words) > 1 or words[0].startswith("@")


def read_inputs(words: Iterable[str], output: str | None) -> list[Input]:
    """The payloads that `words` stand for, each once; `output` is where a batch is to be written.

    Raises UsageError, WordError, before any work.
    """
    payloads = each_once(_expanded(words))
    if output is not None:
        _check_outputs(payloads, output)
    return payloads


def do_each(
    payloads: list[Input],
    work: Callable[[Input], Reply],
    entry: Callable[..., dict[str, Any]],
    wanted: Wanted,
    *,
    jobs: int = 1,
    fail_fast: bool = False,
    summary: bool = True,
) -> int:
    """Do `work` on each payload and report the results. Returns the highest exit code.

    An error becomes the reply of its payload. `entry` makes the JSON of a payload that `work` did not reach.
    """
    progress = Progress(len(payloads), "payloads")
    counts: Counter[str] = Counter()
    entries = []
    worst = 0
    results = pool.run(
        payloads,
        lambda payload: attempt(payload.path, lambda: work(payload), entry),
        jobs=jobs,
        lost=lambda payload: failed(payload.path, FileError("its process was killed: not enough memory?"), entry),
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
        print_json({"payloads": entries + [entry(payload.path, NOT_BEGUN) for payload in not_begun]})
    elif summary and not wanted.quiet:
        count_failed = counts.pop(FAILED, 0)
        ordered = [*counts.most_common(), (FAILED, count_failed), (NOT_BEGUN, len(not_begun))]
        words = ", ".join(f"{count} {status}" for status, count in ordered if count)
        click.echo(f"{counted(len(payloads), 'payload')}: {words or 'nothing to do'}")
    return worst


def _expanded(words: Iterable[str]) -> Iterator[str]:
    """The words, each @FILE replaced by the payloads that it lists, one on each line."""
    for word in words:
        if not word.startswith("@"):
            yield word
            continue
        with click.open_file(word[1:], encoding="utf-8", errors="surrogateescape") as lines:
            for path in filter(None, (line.rstrip("\n") for line in lines)):
                check_payload(path)
                yield path


def _check_outputs(payloads: list[Input], folder: str) -> None:
    if not os.path.isdir(folder):
        raise click.UsageError("with several payloads, -o must be an existing folder")
    outputs = Counter(output_place(folder, payload.path) for payload in payloads)
    for output, count in outputs.items():
        if count > 1:
            raise click.UsageError(f"{count} payloads would be written to the same file, {shown(output)}")
