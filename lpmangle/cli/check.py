"""lpmangle check: what Xen will say to uploads, before they are made."""

from collections.abc import Iterable
from typing import Any

import click

from lpmangle.cli.output import print_json, print_table, shown
from lpmangle.cli.paths import FilePath
from lpmangle.errors import EXIT_NO, about
from lpmangle.loader import CRASH, Finding, Hypervisor, Payload, State, Verdict, check_sequence, take
from lpmangle.system import files
from lpmangle.xen.versions import Version, parse_version

COLOURS = {"refused": "red", CRASH: "red", "warning": "yellow", "not checked": "cyan"}


@click.command(
    "check",
    help="""\b
Examples:
  lpmangle check --xen xen-syms one.livepatch two.livepatch
  lpmangle check --xen xensyms.txt --loaded one.livepatch two.livepatch
  lpmangle check --xen xen-syms --stack fleet.txt two.livepatch

Play the upload of PAYLOADs, in that order, through the rules of Xen's loader, and say what the
hypervisor will: its verdict, errno and message for each. All findings are listed, the one that
Xen reports is marked with >. A payload that is taken is then applied, or if it depends on the
hypervisor itself replaces what is applied. The exit code is 1 if any is refused.
""",
)
@click.argument("payloads", nargs=-1, required=True, type=FilePath(), metavar="PAYLOAD...")
@click.option(
    "--xen",
    "xen_path",
    type=FilePath(),
    metavar="FILE",
    help="The hypervisor's xen-syms, or a copy of /proc/xen/xensyms. Without it, what needs it is not checked.",
)
@click.option(
    "--xen-version",
    metavar="VERSION",
    help="Whose rules to follow, such as 4.17 or 4.17.7. Default: what xen-syms says, else the newest.",
)
@click.option("--loaded", multiple=True, type=FilePath(), metavar="PAYLOAD", help="Is loaded and applied; repeatable.")
@click.option(
    "--stack",
    "stack_path",
    type=FilePath(),
    metavar="FILE",
    help="Check against many hosts: a file that lists what each has loaded, one payload per line and a blank "
    "line between hosts, or as JSON.",
)
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    payloads: tuple[str, ...],
    xen_path: str | None,
    xen_version: str | None,
    loaded: tuple[str, ...],
    stack_path: str | None,
    as_json: bool,
) -> None:
    if stack_path and loaded:
        raise click.UsageError("--stack and --loaded do not go together: list what is loaded in the stack")
    state = State(Hypervisor.at(xen_path) if xen_path else None, _version(xen_version))
    uploads = [_read(path) for path in payloads]
    if stack_path:
        from lpmangle.cli.check_stacks import check_stacks

        ctx.exit(check_stacks(stack_path, uploads, state, as_json))
    put_on(state, loaded)
    verdicts = check_sequence(uploads, state)
    if as_json:
        print_json({"xen_version": version_text(state), "payloads": [record(verdict) for verdict in verdicts]})
    else:
        _print(verdicts, state)
    if not all(verdict.good for verdict in verdicts):
        ctx.exit(EXIT_NO)


def put_on(state: State, paths: Iterable[str]) -> None:
    """Payloads that are loaded and applied already, in that order. Raises LpmangleError."""
    for path in paths:
        with about(path):
            payload = take(_read(path), state)
        state.loaded.append(payload)
        state.applied.append(payload)


def _version(text: str | None) -> Version | None:
    return parse_version(text) if text else None


def _read(path: str) -> Payload:
    return Payload.at(path, files.read(path).data)


def version_text(state: State) -> str:
    major, minor, point = state.rules.version
    return f"{major}.{minor}.{point}" if point < 99 else f"{major}.{minor}"


def record(verdict: Verdict) -> dict[str, Any]:
    """One payload in JSON."""
    first = verdict.first
    return {
        "payload": verdict.payload.path,
        "name": verdict.payload.name,
        "verdict": verdict.status,
        "complete": verdict.complete,
        "errno": first.errno if first else 0,
        "errno_name": first.errno_name if first else "",
        "message": first.message if first else "",
        "action": verdict.action,
        "findings": [_finding(finding, finding is first) for finding in verdict.everything],
    }


def _finding(finding: Finding, reported: bool) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "severity": finding.severity,
        "reported": reported,
        "errno": finding.errno,
        "errno_name": finding.errno_name,
        "message": finding.message,
        "meaning": finding.meaning,
        "detail": finding.detail,
        "symbol": finding.symbol,
        "remedy": finding.remedy,
    }


def _print(verdicts: list[Verdict], state: State) -> None:
    rows: list[tuple[str, ...]] = [("PAYLOAD", "VERDICT", "ERRNO", "XEN SAYS")]
    for verdict in verdicts:
        status = verdict.status if verdict.first or verdict.complete else f"{verdict.status} (not all checked)"
        rows.append((shown(verdict.payload.path), status, _errno(verdict.first), says(verdict)))
    print_table(rows)
    for verdict in verdicts:
        if verdict.everything:
            click.echo(f"\n{shown(verdict.payload.path)}")
            print_findings(verdict)
    known = "" if state.xen else "; without --xen nothing is known of the hypervisor's own symbols"
    click.echo(f"\nBy the rules of Xen {version_text(state)}{known}.")


def says(verdict: Verdict) -> str:
    """What the console shows, or what happens next."""
    if verdict.first:
        return shown(verdict.first.message) or f"nothing ({verdict.first.meaning})"
    refused = next((finding for finding in verdict.then if finding.fatal), None)
    if refused:
        return f"then: {shown(refused.message.partition(chr(10))[0] or refused.meaning)}"
    return f"then: xen-livepatch {verdict.action} {shown(verdict.payload.name)}"


def _errno(finding: Finding | None) -> str:
    return f"{finding.errno_name} ({finding.errno})" if finding and finding.errno else ""


def print_findings(verdict: Verdict) -> None:
    """All of them, those of one kind together, the one that Xen reports marked."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in verdict.everything:
        groups.setdefault((finding.severity, finding.rule), []).append(finding)
    for (severity, rule), findings in groups.items():
        first = verdict.first in findings
        head = click.style(severity, fg=COLOURS[severity], bold=first)
        errno = f" {_errno(findings[0])}" if findings[0].fatal and findings[0].errno else ""
        click.echo(f"  {'>' if first else ' '} {head}{errno}: {findings[0].meaning}  [{rule}]")
        for finding in findings:
            for line in filter(None, [*finding.message.splitlines(), _small(finding)]):
                click.echo(f"      {shown(line)}")
        for remedy in dict.fromkeys(finding.remedy for finding in findings):
            click.echo(f"      remedy: {remedy}")


def _small(finding: Finding) -> str:
    if finding.severity == CRASH:
        return f"(the hypervisor dies) {finding.detail}"
    if finding.fatal and not finding.message:
        return f"(nothing is printed) {finding.detail}"
    return f"    {finding.detail}" if finding.detail and finding.message else finding.detail
