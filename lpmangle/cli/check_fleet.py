"""lpmangle check --stack: a matrix of stacks and payloads."""

import os
from typing import Any

import click

from lpmangle.cli.check_report import rules_line, rules_record
from lpmangle.cli.output import print_json, print_table, shown
from lpmangle.errors import EXIT_NO, PayloadError, about, counted
from lpmangle.loader import Loaded, State, Upload, take
from lpmangle.loader.fleet import Cell, Host, Matrix, read_hosts
from lpmangle.system import files


def check_fleet(path: str, payloads: list[Upload], state: State, as_json: bool) -> int:
    """Check `payloads` against every stack in the file at `path`; returns the exit code."""
    with about(path):
        try:
            text = files.read(path).data.decode()
        except UnicodeDecodeError:
            raise PayloadError("is no text") from None
        stacks = read_hosts(text, os.path.dirname(path))
    matrix = Matrix(payloads, state)
    deployed: dict[str, Loaded] = {}
    for file in dict.fromkeys(file for stack in stacks for file in stack.paths):
        with about(file):
            deployed[file] = take(Upload.at(file, files.read(file).data), matrix.state)
    rows = [(stack, matrix.check([deployed[file] for file in stack.paths])) for stack in stacks]
    if as_json:
        paths, stacks_found = [payload.path for payload in payloads], [_record(*row) for row in rows]
        print_json({**rules_record(state), "payloads": paths, "stacks": stacks_found})
    else:
        _print(rows, payloads)
        click.echo(f"\n{rules_line(state)}")
    return 0 if all(cell.good for _, cells in rows for cell in cells) else EXIT_NO


def _record(stack: Host, cells: list[Cell]) -> dict[str, Any]:
    results = []
    for cell in cells:
        finding = cell.first or cell.then
        results.append(
            {
                "verdict": cell.status,
                "action": cell.attempt if cell.good else "",
                "rule": finding.rule if finding else "",
                "errno": finding.errno if finding else 0,
                "message": finding.message if finding else "",
                "detail": finding.detail if finding else "",
                "remedy": finding.remedy if finding else "",
            }
        )
    return {"stack": stack.name, "loaded": list(stack.paths), "results": results}


def _print(rows: list[tuple[Host, list[Cell]]], payloads: list[Upload]) -> None:
    table: list[tuple[str, ...]] = [("STACK", *(shown(payload.path) for payload in payloads))]
    reasons: dict[tuple[str, str], int] = {}
    for stack, cells in rows:
        table.append((shown(stack.name), *map(_cell, cells)))
        for finding in (cell.first or cell.then for cell in cells):
            if finding:
                reason = finding.headline or finding.meaning, finding.remedy
                reasons[reason] = reasons.get(reason, 0) + 1
    print_table(table)
    for number, payload in enumerate(payloads):
        good = sum(cells[number].good for _, cells in rows)
        click.echo(f"\n{shown(payload.path)}: taken by {good} of {counted(len(rows), 'stack')}", nl=False)
    click.echo()
    for (says, remedy), count in sorted(reasons.items(), key=lambda item: -item[1]):
        click.echo(f"  {click.style(str(count), fg='red')} x {shown(says)}\n      remedy: {remedy}")


def _cell(cell: Cell) -> str:
    if cell.first:
        detail = f" ({cell.first.detail})" if cell.first.detail else ""
        what = cell.first.headline.partition(": ")[2] or cell.first.meaning
        return f"{cell.status}: {shown(what)}{shown(detail)}"
    if cell.then:
        return f"taken, but no {cell.attempt}: {shown(cell.then.meaning)}"
    return f"taken, then {cell.attempt}"
