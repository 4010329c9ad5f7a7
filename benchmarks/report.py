"""Figures as people and programs read them: a Markdown table, JSON, two runs side by side."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
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
    yield "| Input | Tool | Old | New | New / old | Old ratio | New ratio | Old peak memory | New |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|"
    before, after = ({_key(row): row for row in _rows(path)} for path in (old, new))
    for key in {**after, **before}:
        was, is_now = before.get(key), after.get(key)
        change = f"{is_now['median'] / was['median']:.2f}" if was and is_now else ""
        times, ratios, peaks = zip(_figures(was), _figures(is_now), strict=True)
        yield _line(*key, *times, change, *ratios, *peaks)


def _figures(row: dict[str, Any] | None) -> tuple[str, str, str]:
    """Time, ratio, peak memory; empty for what was not measured."""
    if row is None:
        return "", "", ""
    return duration(row["median"]), f"{row['ratio']:.2f}", size(median(row["peak_bytes"]))


def duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return rows


def _key(row: dict[str, Any]) -> tuple[str, str]:
    return row["input"], row["tool"]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
