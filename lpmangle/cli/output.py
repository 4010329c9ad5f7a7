"""Words on a terminal: one form for messages, names made safe to print, errors, JSON.

Whatever people read, reports and messages, shows names escaped, on a terminal and in a pipe: a log is looked at on a
terminal later, and a newline in a name would make a line of its own. What programs read has names exactly: JSON,
`print_exact`, and what `retrace` copies.
"""

import json
import sys
from typing import Any

import click

from lpmangle.elf import text
from lpmangle.errors import EXIT_FILES, LpmangleError


def shown(name: str | bytes) -> str:
    """A name as it can be printed: control and other invisible characters, and what is no text, as escapes."""
    if isinstance(name, bytes):
        name = text(name)
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def warn(path: str, message: str) -> None:
    """`lpmangle: FILE: message` on stderr."""
    click.echo(message_line(path, message), err=True)


def message_line(path: str, message: str) -> str:
    """`lpmangle: FILE: message`."""
    prefix = f"lpmangle: {shown(path)}: " if path else "lpmangle: "
    return prefix + shown(message)


def error_lines(error: Exception) -> tuple[list[str], int]:
    """What to say about an error that is not a bug of ours, and its exit code. Any other error is raised again."""
    if isinstance(error, LpmangleError):
        hint = [f"  hint: {shown(error.hint)}"] if error.hint else []
        return [message_line(error.path, error.message), *hint], error.exit_code
    if isinstance(error, OSError):
        what = "" if error.filename else "cannot print: "  # files.py names the file of every error of its own
        return [message_line(error.filename or "", what + (error.strerror or str(error)))], EXIT_FILES
    if isinstance(error, MemoryError):
        return [message_line("", "not enough memory")], EXIT_FILES
    raise error


def print_json(report: Any) -> None:
    """One JSON document on stdout, in ASCII."""
    click.echo(json.dumps(report, indent=2))


def print_exact(line: str) -> None:
    """A line for another program, as it is; on a terminal nobody but a person reads it."""
    # Not click.echo, which takes out of a pipe what looks like a colour.
    sys.stdout.write(f"{shown(line) if sys.stdout.isatty() else line}\n")


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as they need be, all cells made safe to print; the first row is the heading."""
    for line in table_lines(rows):
        click.echo(line)


def table_lines(rows: list[tuple[str, ...]]) -> list[str]:
    """The same as lines."""
    rows = [tuple(map(shown, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
