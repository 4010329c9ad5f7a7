"""JUnit's XML, which CI systems show as a list of tests: a test for each payload, or for each group of equal hosts.

It has only what all readers know (the common part of Ant's and Maven's form, Jenkins' junit-10.xsd), without times and
host names: the same input makes the same bytes. Names are as `shown` prints them, so all characters are allowed in XML.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import click

from lpmangle.cli.check_fleet import cell_words, reason
from lpmangle.cli.check_report import decisive, finding_lines, headline, is_unfit, rules_line, signature_lines
from lpmangle.cli.output import shown
from lpmangle.errors import counted
from lpmangle.loader import State, Upload, Verdict
from lpmangle.loader.fleet import Group, Row, equal_hosts
from lpmangle.verify.signing_key import SignatureAnswer

_NAME = "lpmangle check"
_CLASS = "lpmangle.check"


_SIGNATURE = "signature"  # why a test fails whose payload Xen as released accepts


class _Case(NamedTuple):
    """A test: its name, what makes it fail (empty if nothing does), the verdict in a line, and more lines about it."""

    name: str
    failure: str
    headline: str
    lines: list[str]


def of_uploads(verdicts: list[Verdict], state: State, signatures: Sequence[str | SignatureAnswer]) -> bytes:
    """One test for each upload."""
    cases = []
    for verdict, said in zip(verdicts, signatures, strict=True):
        finding = decisive(verdict)
        case = _Case(
            shown(verdict.upload.path),
            str(finding.rule) if finding else "",
            shown(headline(verdict)),
            [click.unstyle(line) for line in finding_lines(verdict)],
        )
        cases.append(_with_signature(case, said))
    return _report([(_NAME, _CLASS, cases)], state)


def of_fleet(
    rows: list[Row], payloads: list[Upload], state: State, signatures: Sequence[str | SignatureAnswer]
) -> bytes:
    """A suite for each payload, in it one test for each group of equal hosts, and one for a signature."""
    groups, suites = equal_hosts(rows), []
    for number, (payload, said) in enumerate(zip(payloads, signatures, strict=True)):
        cases = [_case(group, number) for group in groups]
        if words := [shown(line) for line in signature_lines(said)]:
            cases.append(_Case(_SIGNATURE, _SIGNATURE if is_unfit(said) else "", words[0], words[1:]))
        suites.append((shown(payload.path), f"{_CLASS}.{shown(payload.name)}", cases))
    return _report(suites, state)


def _with_signature(case: _Case, said: str | SignatureAnswer) -> _Case:
    """The same with what is to be said of the payload's signature: what fails only for that says so first."""
    words = [shown(line) for line in signature_lines(said)]
    if is_unfit(said) and not case.failure:
        return _Case(case.name, _SIGNATURE, words[0], [*words[1:], case.headline, *case.lines])
    return case._replace(lines=[*case.lines, *words])


def _case(group: Group, number: int) -> _Case:
    cell, (first, *more) = group.cells[number], group.hosts
    name = f"{first.name} and {counted(len(more), 'equal stack')}" if more else first.name
    lines = [f"stacks: {', '.join(host.name for host in group.hosts)}"] if more else []
    lines += [f"loaded: {path}" for path in first.paths] or ["loaded: nothing"]
    if cell.finding:
        says, remedy = reason(cell.finding)
        lines += [says, f"remedy: {remedy}"]
    failure = str(cell.finding.rule) if cell.finding else ""
    return _Case(shown(name), failure, cell_words(cell), list(map(shown, lines)))


def _report(suites: Iterable[tuple[str, str, list[_Case]]], state: State) -> bytes:
    root = Element("testsuites", name=_NAME)
    used: dict[tuple[str, str], int] = {}
    for name, class_name, cases in suites:
        failures = sum(bool(case.failure) for case in cases)
        suite = SubElement(root, "testsuite", name=name, tests=str(len(cases)), failures=str(failures), errors="0")
        for case in cases:
            number = used[class_name, case.name] = used.get((class_name, case.name), 0) + 1
            _add(suite, case, class_name, f"{case.name} ({number})" if number > 1 else case.name)
        SubElement(suite, "system-out").text = rules_line(state)
    indent(root)
    text: bytes = tostring(root, encoding="UTF-8", xml_declaration=True)
    return text + b"\n"


def _add(suite: Element, case: _Case, class_name: str, name: str) -> None:
    """`name` must be unique in the class: some readers show only the first of two."""
    test = SubElement(suite, "testcase", classname=class_name, name=name)
    lines = "\n".join([case.headline, *case.lines])
    if case.failure:
        SubElement(test, "failure", type=case.failure, message=case.headline).text = lines
    else:
        SubElement(test, "system-out").text = lines
