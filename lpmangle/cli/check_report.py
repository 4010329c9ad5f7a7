"""What `lpmangle check` says: a table, all findings with remedies; or JSON."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import click

from lpmangle.cli.output import print_table, shown
from lpmangle.loader import CRASH, NOT_CHECKED, REFUSED, WARNING, Finding, State, Verdict
from lpmangle.xen.versions import version_text

COLOURS = {REFUSED: "red", CRASH: "red", WARNING: "yellow", NOT_CHECKED: "cyan"}


def report(verdicts: list[Verdict], state: State) -> dict[str, Any]:
    """All uploads for JSON."""
    return {**rules_record(state), "payloads": [record(verdict) for verdict in verdicts]}


def rules_record(state: State) -> dict[str, str]:
    """Whose rules were followed, for JSON."""
    return {"xen_version": version_text(state.profile.version), "vendor": state.profile.vendor}


def record(verdict: Verdict) -> dict[str, Any]:
    """One upload for JSON."""
    first = verdict.first
    return {
        "payload": verdict.upload.path,
        "name": verdict.upload.name,
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


def print_report(verdicts: list[Verdict], state: State) -> None:
    """A table of all uploads, then what was found about each."""
    rows: list[tuple[str, ...]] = [("PAYLOAD", "VERDICT", "ERRNO", "XEN SAYS")]
    for verdict in verdicts:
        rows.append((verdict.upload.path, verdict.words, _errno(verdict.first), says(verdict)))
    print_table(rows)
    for verdict in verdicts:
        if verdict.everything:
            click.echo(f"\n{shown(verdict.upload.path)}")
            print_findings(verdict)
    click.echo(f"\n{rules_line(state)}")


def rules_line(state: State) -> str:
    """Whose rules were followed, and what was not known."""
    rules, nearest = state.profile.version, ""
    vendor = f" ({state.profile.vendor})" if state.profile.vendor else ""
    if state.version not in (None, rules):
        nearest = f", the nearest to {version_text(state.version)} that is known"
    known = "" if state.xen else "; without --xen nothing is known of the hypervisor's own symbols"
    return f"By the rules of Xen {version_text(rules)}{vendor}{nearest}{known}."


def says(verdict: Verdict) -> str:
    """What the console shows, or what happens next."""
    if verdict.first:
        return verdict.first.headline or f"nothing ({verdict.first.meaning})"
    if refused := decisive(verdict):
        return f"then: {refused.headline or refused.meaning}"
    return f"then: xen-livepatch {verdict.action} {verdict.upload.name}"


def decisive(verdict: Verdict) -> Finding | None:
    """Why it is not taken, or cannot be put to use; None if all is well."""
    return verdict.first or next((finding for finding in verdict.then if finding.fatal), None)


def headline(verdict: Verdict) -> str:
    """The verdict in one line: its words, and what the console shows or what happens next."""
    return f"{verdict.words}{':' if verdict.first else ','} {says(verdict)}"


def _errno(finding: Finding | None) -> str:
    return f"{finding.errno_name} ({finding.errno})" if finding and finding.errno else ""


class Kind(NamedTuple):
    """What was found of one kind about one payload."""

    findings: list[Finding]
    reported: bool  # Xen reports one of them

    @property
    def errno(self) -> str:
        """What comes back, if that decides."""
        return _errno(self.findings[0]) if self.findings[0].fatal else ""

    @property
    def remedies(self) -> list[str]:
        """Each once."""
        return list(dict.fromkeys(finding.remedy for finding in self.findings))


def kinds(verdict: Verdict) -> list[Kind]:
    """All findings, those of one kind together, in the order in which Xen would come upon the first of each."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in verdict.everything:
        groups.setdefault((finding.severity, finding.rule), []).append(finding)
    return [Kind(findings, verdict.first in findings) for findings in groups.values()]


def print_findings(verdict: Verdict) -> None:
    """All of them, those of one kind together, the one that Xen reports marked."""
    for line in finding_lines(verdict):
        click.echo(line)


def finding_lines(verdict: Verdict) -> Iterator[str]:
    """The same as lines, with colours."""
    for kind in kinds(verdict):
        finding = kind.findings[0]
        head = click.style(finding.severity, fg=COLOURS[finding.severity], bold=kind.reported)
        errno = f" {kind.errno}" if kind.errno else ""
        yield f"  {'>' if kind.reported else ' '} {head}{errno}: {finding.meaning}  [{finding.rule}]"
        for finding in kind.findings:
            for line in filter(None, [*finding.lines, _small(finding)]):
                yield f"      {shown(line.replace(chr(0xA0), ' '))}"
        for remedy in kind.remedies:
            yield f"      remedy: {remedy}"


def _small(finding: Finding) -> str:
    if finding.severity == CRASH:
        return f"(the hypervisor dies) {finding.detail}"
    if finding.fatal and not finding.message:
        return f"(nothing is printed) {finding.detail}"
    return f"    {finding.detail}" if finding.detail and finding.message else finding.detail
