"""What `lpmangle check` says: a table, all findings with remedies; or JSON."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import click

from lpmangle.cli.output import print_table, shown
from lpmangle.errors import counted
from lpmangle.loader import CRASH, NOT_CHECKED, REFUSED, WARNING, Finding, State, Upload, Verdict
from lpmangle.verify.signing_key import SignatureAnswer
from lpmangle.xen.versions import version_text

_INSISTING = "a hypervisor that insists on signatures refuses it; Xen as released does not look at them"
COLOURS = {REFUSED: "red", CRASH: "red", WARNING: "yellow", NOT_CHECKED: "cyan"}


def report(verdicts: list[Verdict], state: State, signatures: Sequence[str | SignatureAnswer] = ()) -> dict[str, Any]:
    """All uploads for JSON."""
    payloads = [record(verdict) for verdict in verdicts]
    for entry, said in zip(payloads, signatures, strict=False):
        entry["signature"] = signature_record(said)
    return {**rules_record(state), "payloads": payloads}


def print_signatures(uploads: Sequence[Upload], said: Sequence[str | SignatureAnswer]) -> None:
    """How each payload is signed, if it is; and what a hypervisor that insists on signatures would do."""
    for upload, signature in zip(uploads, said, strict=True):
        for line in signature_lines(signature):
            click.echo(f"  {line}" if line == _INSISTING else f"{shown(upload.path)}: {shown(line)}")


def signature_lines(said: str | SignatureAnswer) -> list[str]:
    """The same for one payload."""
    if not isinstance(said, SignatureAnswer):
        return [f"signed ({said}); --key checks whether it is valid"] if said else []
    return [said.words, _INSISTING] if is_unfit(said) else [said.words]


def is_unfit(said: str | SignatureAnswer) -> bool:
    """Whether a key was asked about a signature, and said no."""
    return isinstance(said, SignatureAnswer) and not said.valid


def signature_record(said: str | SignatureAnswer) -> str | None:
    """For JSON."""
    return said.status if isinstance(said, SignatureAnswer) else said or None


def rules_record(state: State) -> dict[str, str]:
    """Which rules were applied, for JSON."""
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
        rows.append((verdict.upload.path, verdict.words, errno_words(verdict.first), says(verdict)))
    print_table(rows)
    for verdict in verdicts:
        if verdict.everything:
            click.echo(f"\n{shown(verdict.upload.path)}")
            print_findings(verdict)
    click.echo(f"\n{rules_line(state)}")


def rules_line(state: State) -> str:
    """Which rules were applied, and what was not known."""
    rules, nearest = state.profile.version, ""
    vendor = f" ({state.profile.vendor})" if state.profile.vendor else ""
    if state.version not in (None, rules):
        nearest = f", the nearest to {version_text(state.version)} that is known"
    known = "" if state.xen else "; without --xen the hypervisor's own symbols are not known"
    return f"By the rules of Xen {version_text(rules)}{vendor}{nearest}{known}."


def says(verdict: Verdict) -> str:
    """What the console shows, or what happens next."""
    if verdict.first:
        return verdict.first.headline or f"nothing ({verdict.first.meaning})"
    if refused := decisive(verdict):
        return f"then: {refused.headline or refused.meaning}"
    return f"then: xen-livepatch {verdict.action} {verdict.upload.name}"


def but_no(attempt: str) -> str:
    """The status of a payload that Xen accepts, but that then cannot be applied or replace the others."""
    return f"accepted, but {attempt} fails"


def outcome(verdict: Verdict) -> str:
    """The status, and how far it goes."""
    return verdict.words if verdict.good or verdict.first else but_no(verdict.attempt)


def summary(verdicts: list[Verdict]) -> str:
    """All verdicts in one line."""
    if len(verdicts) == 1:
        return f"{verdicts[0].upload.path}: {outcome(verdicts[0])}"
    counts = Counter(map(outcome, verdicts))
    words = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    return f"{counted(len(verdicts), 'payload')}: {words}"


def decisive(verdict: Verdict) -> Finding | None:
    """Why it is not accepted, or cannot be used; None if all is well."""
    return verdict.first or next((finding for finding in verdict.then if finding.fatal), None)


def headline(verdict: Verdict) -> str:
    """The verdict in one line: its words, and what the console shows or what happens next."""
    return f"{verdict.words}{':' if verdict.first else ','} {says(verdict)}"


def errno_words(finding: Finding | None) -> str:
    """The errno by name and number; empty if there is none."""
    return f"{finding.errno_name} ({finding.errno})" if finding and finding.errno else ""


class FindingGroup(NamedTuple):
    """All findings of one kind about one payload."""

    findings: list[Finding]
    reported: bool  # Xen reports one of them

    @property
    def errno(self) -> str:
        """The errno, if the findings are fatal."""
        return errno_words(self.findings[0]) if self.findings[0].fatal else ""

    @property
    def remedies(self) -> list[str]:
        """The remedies, each once."""
        return list(dict.fromkeys(finding.remedy for finding in self.findings))


def kinds(verdict: Verdict) -> list[FindingGroup]:
    """All findings, those of one kind together, in the order in which Xen would meet the first of each."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in verdict.everything:
        groups.setdefault((finding.severity, finding.rule), []).append(finding)
    return [FindingGroup(findings, verdict.first in findings) for findings in groups.values()]


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
            for line in filter(None, [*finding.lines, small(finding)]):
                yield f"      {shown(spaced(line))}"
        for remedy in kind.remedies:
            yield f"      remedy: {remedy}"


def spaced(line: str) -> str:
    """A line of Xen's, with ordinary spaces."""
    return line.replace("\xa0", " ")


def small(finding: Finding) -> str:
    """What a finding says besides Xen's lines, indented if it belongs to them."""
    if finding.severity == CRASH:
        return f"(the hypervisor crashes) {finding.detail}"
    if finding.fatal and not finding.message:
        return f"(nothing is printed) {finding.detail}"
    return f"    {finding.detail}" if finding.detail and finding.message else finding.detail
