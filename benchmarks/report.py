"""Figures as people and programs read them: a Markdown table, JSON, two runs side by side."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Contestant, Group, size


def table(groups: Sequence[Group]) -> Iterator[str]:
    """All groups, a line for each tool."""
    yield "| Input | Tool | Time | Ratio | Peak memory | Ratio | Output |"
    yield "|---|---|--:|--:|--:|--:|---|"
    for group in groups:
        first = group.rows[0]
        for row in group.rows:
            figures = [""] * 4
            if not row.failure:
                figures = [duration(row.time), f"{row.time / first.time:.2f}"]
                figures += [size(row.memory), f"{row.memory / first.memory:.2f}"]
            yield _line(group.title if row is first else "", row.name, *figures, row.failure or row.output)


def per_symbol(rows: Sequence[Contestant]) -> Iterator[str]:
    """How time grows: what a symbol costs beyond what the first row takes."""
    yield "| Symbols | Time | for each symbol, start-up left out | Peak memory |"
    yield "|--:|--:|--:|--:|"
    first = rows[0]
    for row in rows:
        cost = "" if row is first else f"{(row.time - first.time) / (row.units - first.units) * 1e6:.1f} µs"
        yield _line(f"{row.units:,}", duration(row.time), cost, size(row.memory))


def write(path: Path, versions: dict[str, str], groups: Sequence[Group]) -> None:
    """Every single figure, for `compare`."""
    rows = [
        {"input": group.title, "tool": row.name, "seconds": row.seconds, "peak_bytes": row.peak_bytes}
        | {"median": row.time, "ratio": row.time / group.rows[0].time}
        for group in groups
        for row in group.rows
        if not row.failure
    ]
    path.write_text(json.dumps({"versions": versions, "rows": rows}, indent=2) + "\n")


def compare(old: Path, new: Path) -> Iterator[str]:
    """Two runs side by side. Ratios are to the first tool of an input, and do not depend on the machine's mood."""
    yield "| Input | Tool | Old | New | New / old | Old ratio | New ratio |"
    yield "|---|---|--:|--:|--:|--:|--:|"
    before = {_key(row): row for row in _rows(old)}
    for row in _rows(new):
        if was := before.get(_key(row)):
            change = row["median"] / was["median"]
            times = [duration(was["median"]), duration(row["median"]), f"{change:.2f}"]
            yield _line(*_key(row), *times, f"{was['ratio']:.2f}", f"{row['ratio']:.2f}")


def duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return rows


def _key(row: dict[str, Any]) -> tuple[str, str]:
    return row["input"], row["tool"]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
