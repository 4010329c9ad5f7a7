"""JUnit's XML, which CI systems show as a list of tests: a test for each payload, or for each group of equal hosts.

It has only what all readers know (the common part of Ant's and Maven's form, Jenkins' junit-10.xsd), without times and
host names: the same input makes the same bytes. Names are as `shown` prints them, so all characters are allowed in XML.
"""

from collections.abc import Iterable
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import click

from lpmangle.cli.check_fleet import cell_words, reason
from lpmangle.cli.check_report import decisive, finding_lines, headline, rules_line
from lpmangle.cli.output import shown
from lpmangle.errors import counted
from lpmangle.loader import Finding, State, Upload, Verdict
from lpmangle.loader.fleet import Group, Row, equal_hosts

_NAME = "lpmangle check"
_CLASS = "lpmangle.check"


class _Case(NamedTuple):
    """A test: its name, why it fails (None if it does not), the verdict in a line, and more lines about it."""

    name: str
    finding: Finding | None
    headline: str
    lines: list[str]


def of_uploads(verdicts: list[Verdict], state: State) -> bytes:
    """One test for each upload."""
    cases = [
        _Case(
            shown(verdict.upload.path),
            decisive(verdict),
            shown(headline(verdict)),
            [click.unstyle(line) for line in finding_lines(verdict)],
        )
        for verdict in verdicts
    ]
    return _report([(_NAME, _CLASS, cases)], state)


def of_fleet(rows: list[Row], payloads: list[Upload], state: State) -> bytes:
    """A suite for each payload, in it one test for each group of equal hosts."""
    groups, suites = equal_hosts(rows), []
    for number, payload in enumerate(payloads):
        cases = [_case(group, number) for group in groups]
        suites.append((shown(payload.path), f"{_CLASS}.{shown(payload.name)}", cases))
    return _report(suites, state)


def _case(group: Group, number: int) -> _Case:
    cell, (first, *more) = group.cells[number], group.hosts
    name = f"{first.name} and {counted(len(more), 'equal stack')}" if more else first.name
    lines = [f"stacks: {', '.join(host.name for host in group.hosts)}"] if more else []
    lines += [f"loaded: {path}" for path in first.paths] or ["loaded: nothing"]
    if cell.finding:
        says, remedy = reason(cell.finding)
        lines += [says, f"remedy: {remedy}"]
    return _Case(shown(name), cell.finding, cell_words(cell), list(map(shown, lines)))


def _report(suites: Iterable[tuple[str, str, list[_Case]]], state: State) -> bytes:
    root = Element("testsuites", name=_NAME)
    used: dict[tuple[str, str], int] = {}
    for name, class_name, cases in suites:
        failures = sum(case.finding is not None for case in cases)
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
    if case.finding:
        SubElement(test, "failure", type=case.finding.rule, message=case.headline).text = lines
    else:
        SubElement(test, "system-out").text = lines
