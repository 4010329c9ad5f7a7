"""Words on a terminal: one form for messages, names made safe to print, JSON."""

import json
from typing import Any

import click


def shown(name: str | bytes) -> str:
    """A name as it can be printed: control and other invisible characters, and what is no text, as escapes."""
    if isinstance(name, bytes):
        name = name.decode("utf-8", "backslashreplace")
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def warn(path: str, message: str) -> None:
    """`lpmangle: FILE: message` on stderr."""
    prefix = f"lpmangle: {shown(path)}: " if path else "lpmangle: "
    click.echo(prefix + shown(message), err=True)


def print_json(report: Any) -> None:
    """One JSON document on stdout, in ASCII."""
    click.echo(json.dumps(report, indent=2))


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as they need be; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
