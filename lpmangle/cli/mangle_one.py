"""One payload mangled, and what is said about it."""

from lpmangle.cli.mangle_report import done, entry, plan_lines, result_lines
from lpmangle.cli.output import message_line
from lpmangle.cli.reply import Reply, Wanted, failed
from lpmangle.errors import LpmangleError
from lpmangle.jobs.mangle import Request, mangle
from lpmangle.jobs.result import Result


def attempt(request: Request, wanted: Wanted) -> Reply:
    """Mangle one payload; an error is a reply as well."""
    try:
        return reply_of(mangle(request), wanted)
    except (LpmangleError, OSError, MemoryError) as error:
        return failed(request.path, error, entry)


def reply_of(result: Result, wanted: Wanted) -> Reply:
    """What is to be said about a payload that is done."""
    lines: list[str] = []
    if not (wanted.as_json or wanted.quiet):
        dry_run = result.plan.options.dry_run
        lines = list(plan_lines(result) if dry_run else result_lines(result, verbose=wanted.verbose))
    warnings = [message_line(result.path, f"warning: {warning}") for warning in result.warnings]
    return Reply(result.status, lines, warnings, done(result) if wanted.as_json else {})
