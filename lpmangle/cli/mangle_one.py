"""One payload mangled, and what is said about it."""

from typing import Any, NamedTuple

import click

from lpmangle.cli.mangle_report import done, entry, plan_lines, result_lines
from lpmangle.cli.output import error_lines, message_line
from lpmangle.errors import LpmangleError
from lpmangle.jobs.mangle import Request, mangle
from lpmangle.jobs.result import Result

FAILED = "failed"


class Wanted(NamedTuple):
    """What a user wants to be told: JSON, each renamed symbol, nothing but warnings and errors."""

    as_json: bool = False
    verbose: bool = False
    quiet: bool = False


class Reply(NamedTuple):
    """What is to be said about one payload: on stdout, on stderr, as JSON (docs/json.md)."""

    status: str
    out: list[str]
    err: list[str]
    entry: dict[str, Any]
    exit_code: int = 0


def attempt(request: Request, wanted: Wanted) -> Reply:
    """Mangle one payload; an error is a reply as well."""
    try:
        return reply_of(mangle(request), wanted)
    except (LpmangleError, OSError, MemoryError) as error:
        return failed(request.path, error)


def reply_of(result: Result, wanted: Wanted) -> Reply:
    """What is to be said about a payload that is done."""
    lines: list[str] = []
    if not (wanted.as_json or wanted.quiet):
        dry_run = result.plan.options.dry_run
        lines = list(plan_lines(result) if dry_run else result_lines(result, verbose=wanted.verbose))
    warnings = [message_line(result.path, f"warning: {warning}") for warning in result.warnings]
    return Reply(result.status, lines, warnings, done(result) if wanted.as_json else {})


def failed(payload: str, error: Exception) -> Reply:
    """What is to be said about a payload that is not."""
    if isinstance(error, LpmangleError) and not error.path:
        error.path = payload
    lines, exit_code = error_lines(error)
    message, hint = (error.message, error.hint) if isinstance(error, LpmangleError) else (str(error), "")
    return Reply(FAILED, [], lines, entry(payload, FAILED, exit_code, error=message, hint=hint or None), exit_code)


def say(reply: Reply) -> None:
    """Print it, all but the JSON."""
    for line in reply.err:
        click.echo(line, err=True)
    for line in reply.out:
        click.echo(line)
