"""Mangle one payload, and say what was done."""

import os

from lpmangle.cli.mangle_report import done, entry, plan_lines, report, result_lines
from lpmangle.cli.output import message_line, print_json
from lpmangle.cli.reply import Reply, Wanted, attempt, say
from lpmangle.jobs.mangle import Request, below, mangle
from lpmangle.jobs.outputs import output_place
from lpmangle.jobs.result import Result
from lpmangle.mangle.options import Options


def what_does_not_fit(payload: str | None, options: Options) -> str:
    """What is wrong with options that are each right but do not fit together; without `payload` there are several."""
    if options.depfile and not options.output:
        return "--depfile needs -o: a payload that is mangled in place depends on nothing else"
    if payload is None:
        return "--manifest and --depfile need a single payload" if options.manifest or options.depfile else ""
    for option, path in (("--manifest", options.manifest), ("--depfile", options.depfile)):
        if path and os.path.realpath(path) in map(os.path.realpath, (payload, output_place(options.output, payload))):
            return f"{option} names the payload itself"
    return ""


def mangle_one(payload: str, options: Options, wanted: Wanted) -> int:
    """Mangle a payload and say what was done. Returns the exit code."""
    request = Request(payload, options, below(options))
    reply = attempt(payload, lambda: reply_of(mangle(request), wanted), entry)
    say(reply)
    if wanted.as_json:
        print_json(report([reply.entry]))
    return reply.exit_code


def reply_of(result: Result, wanted: Wanted) -> Reply:
    """What to say about a payload that was mangled."""
    lines: list[str] = []
    if not (wanted.as_json or wanted.quiet):
        dry_run = result.plan.options.dry_run
        lines = list(plan_lines(result) if dry_run else result_lines(result, verbose=wanted.verbose))
    warnings = [message_line(result.path, f"warning: {warning}") for warning in result.warnings]
    return Reply(result.status, lines, warnings, done(result) if wanted.as_json else {})
