"""Words on a terminal: one form for messages, names made safe to print, errors, JSON.

Whatever people read, reports and messages, shows names escaped, on a terminal and in a pipe: a log is read on a
terminal later, and a newline in a name would start a new line. What programs read has the names unchanged: JSON,
`print_exact`, and what `retrace` copies.
"""

import os
import sys

from lpmangle.elf import text
from lpmangle.errors import EXIT_FILES, LpmangleError


def shown(name: str | bytes) -> str:
    """A name that can be printed: invisible characters, and bytes that are not text, become escapes."""
    if isinstance(name, bytes):
        name = text(name)
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def print_message(path: str, message: str) -> None:
    """`lpmangle: FILE: message` on stderr."""
    print_line(message_line(path, message), err=True)


def message_line(path: str, message: str) -> str:
    """`lpmangle: FILE: message`."""
    prefix = f"lpmangle: {shown(path)}: " if path else "lpmangle: "
    return prefix + shown(message)


def error_lines(error: Exception) -> tuple[list[str], int]:
    """The message of an error that is not a bug in lpmangle, and its exit code. Any other error is raised again."""
    if isinstance(error, LpmangleError):
        hint = [f"  hint: {shown(error.hint)}"] if error.hint else []
        return [message_line(error.path, error.message), *hint], error.exit_code
    if isinstance(error, OSError):
        what = "" if error.filename else "cannot print: "  # system.files names the file of every error of its own
        return [message_line(error.filename or "", what + (error.strerror or str(error)))], EXIT_FILES
    if isinstance(error, MemoryError):
        return [message_line("", "not enough memory")], EXIT_FILES
    raise error


def print_line(line: str, *, err: bool = False) -> None:
    """A line on stdout or stderr, at once."""
    stream = sys.stderr if err else sys.stdout
    if stream is not None:  # the shell has closed it: >&-
        stream.write(f"{line}\n")
        stream.flush()


def note_lines(error: Exception) -> list[str]:
    """The notes that were added to an error: where a wrong value came from (`settings`)."""
    return [f"  {note}" for note in getattr(error, "__notes__", ())]


def print_json(report: object) -> None:
    """One JSON document on stdout, in ASCII."""
    import json  # loads re

    print_line(json.dumps(report, indent=2))


def print_exact(line: str) -> None:
    """A line for another program, unchanged; escaped on a terminal, where only a person reads it."""
    sys.stdout.write(f"{shown(line) if sys.stdout.isatty() else line}\n")


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as necessary, all cells made safe to print; the first row is the heading."""
    for line in table_lines(rows):
        print_line(line)


def table_lines(rows: list[tuple[str, ...]]) -> list[str]:
    """The same as lines."""
    rows = [tuple(map(shown, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def forget_stdout() -> None:
    """Keep Python from printing the rest again at exit, which would change the exit code."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
