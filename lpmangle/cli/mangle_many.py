"""`lpmangle` with several payloads, or a list of them."""

from collections.abc import Iterable

from lpmangle.cli.batch import do_each, read_inputs
from lpmangle.cli.mangle_one import reply_of
from lpmangle.cli.mangle_report import entry, report
from lpmangle.cli.output import print_json
from lpmangle.cli.reply import Wanted, failed
from lpmangle.errors import LpmangleError
from lpmangle.jobs.mangle import Request, below, mangle
from lpmangle.mangle.options import Options


def mangle_many(words: Iterable[str], options: Options, wanted: Wanted, jobs: int, fail_fast: bool) -> int:
    """Mangle the payloads that `words` stand for. Returns the highest exit code."""
    payloads = read_inputs(words, options.output)
    against = below(options)
    try:
        if against:
            against.open()
    except LpmangleError as error:
        if wanted.as_json:
            print_json(report([failed(payload.path, error, entry).entry for payload in payloads]))
        raise
    return do_each(
        payloads,
        lambda payload: reply_of(mangle(Request(payload.path, options, against, payload.links)), wanted),
        entry,
        wanted,
        jobs=jobs,
        fail_fast=fail_fast,
    )
