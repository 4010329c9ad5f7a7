"""lpmangle check --stack: a matrix of stacks and payloads."""

from collections.abc import Sequence
from typing import Any

import click

from lpmangle.cli.check_report import but_no, rules_line, rules_record, signature_record
from lpmangle.cli.output import print_json, print_table, shown
from lpmangle.errors import counted
from lpmangle.loader import Finding, State, Upload
from lpmangle.loader.fleet import Cell, Row
from lpmangle.verify.signing_key import SignatureAnswer


def print_fleet(
    rows: list[Row],
    payloads: list[Upload],
    state: State,
    signatures: Sequence[str | SignatureAnswer] = (),
    *,
    as_json: bool,
) -> None:
    """The matrix: which stacks accept which payloads, and why others do not; or JSON."""
    if as_json:
        paths, stacks_found = [payload.path for payload in payloads], [_record(row) for row in rows]
        signed = [signature_record(said) for said in signatures]
        print_json({**rules_record(state), "payloads": paths, "signatures": signed, "stacks": stacks_found})
    else:
        _print(rows, payloads)
        click.echo(f"\n{rules_line(state)}")


def _record(row: Row) -> dict[str, Any]:
    results = []
    for cell in row.cells:
        finding = cell.finding
        results.append(
            {
                "verdict": cell.status,
                "complete": cell.complete,
                "action": cell.attempt if cell.good else "",
                "rule": finding.rule if finding else "",
                "errno": finding.errno if finding else 0,
                "message": finding.message if finding else "",
                "detail": finding.detail if finding else "",
                "remedy": finding.remedy if finding else "",
            }
        )
    return {"stack": row.host.name, "loaded": list(row.host.paths), "results": results}


def _print(rows: list[Row], payloads: list[Upload]) -> None:
    table: list[tuple[str, ...]] = [("STACK", *(shown(payload.path) for payload in payloads))]
    table += [(shown(row.host.name), *map(cell_words, row.cells)) for row in rows]
    print_table(table)
    for number, payload in enumerate(payloads):
        click.echo(f"\n{shown(payload.path)}: {accepted_by(rows, number)}", nl=False)
    click.echo()
    for (says, remedy), count in reasons(rows):
        click.echo(f"  {click.style(str(count), fg='red')} x {shown(says)}\n      remedy: {remedy}")


def accepted_by(rows: list[Row], number: int) -> str:
    """How many hosts accept the upload with that number, and can use it, in words."""
    return accepted_by_words(sum(row.cells[number].good for row in rows), len(rows))


def accepted_by_words(takers: int, stacks: int) -> str:
    """The same for any two numbers."""
    return f"accepted by {takers} of {counted(stacks, 'stack')}"


def reasons(rows: list[Row]) -> list[tuple[tuple[str, str], int]]:
    """Why uploads are not accepted: what Xen says or means, the remedy, and how often; most frequent first."""
    found: dict[tuple[str, str], int] = {}
    for finding in filter(None, (cell.finding for row in rows for cell in row.cells)):
        found[reason(finding)] = found.get(reason(finding), 0) + 1
    return sorted(found.items(), key=lambda item: -item[1])


def reason(finding: Finding) -> tuple[str, str]:
    """What Xen says, or else what it means; and the remedy."""
    return finding.headline or finding.meaning, finding.remedy


def cell_words(cell: Cell) -> str:
    """What one host does with one upload."""
    verdict, more = cell_parts(cell)
    return f"{shown(verdict)}{', ' if cell.good else ': '}{shown(more)}"


def cell_parts(cell: Cell) -> tuple[str, str]:
    """The same in two parts: the verdict, and what happens next or why not."""
    if cell.first:
        detail = f" ({cell.first.detail})" if cell.first.detail else ""
        return cell.status, (cell.first.headline.partition(": ")[2] or cell.first.meaning) + detail
    if cell.then:
        return but_no(cell.attempt), cell.then.meaning
    return cell.words, f"then {cell.attempt}"
