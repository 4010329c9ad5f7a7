"""What to say about one payload, whatever the command did with it."""

from lpmangle.cli.output import error_lines, print_line
from lpmangle.errors import LpmangleError
from lpmangle.system.light import Callable
from lpmangle.system.records import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any

FAILED = "failed"


class Wanted(NamedTuple):
    """What a user wants to see: JSON, each renamed symbol, only warnings and errors."""

    as_json: bool = False
    verbose: bool = False
    quiet: bool = False


class Reply(NamedTuple):
    """What to say about one payload: on stdout, on stderr, as JSON (docs/json.md)."""

    status: str
    out: list[str]
    err: list[str]
    entry: "dict[str, Any]"
    exit_code: int = 0


def entry_of(payload: str, status: str, exit_code: int) -> "dict[str, Any]":
    """The first keys of the JSON that every command has for a payload, for one that did not fail."""
    return {"payload": payload, "status": status, "exit_code": exit_code, "error": None, "hint": None}


def failed(payload: str, error: Exception, entry: "Callable[..., dict[str, Any]]") -> Reply:
    """What to say about a payload that failed; `entry` makes its JSON.

    An error that is a bug in lpmangle is raised again.
    """
    if isinstance(error, LpmangleError) and not error.path:
        error.path = payload
    lines, exit_code = error_lines(error)
    message, hint = (error.message, error.hint) if isinstance(error, LpmangleError) else (str(error), "")
    return Reply(FAILED, [], lines, entry(payload, FAILED, exit_code, error=message, hint=hint or None), exit_code)


def attempt(payload: str, work: "Callable[[], Reply]", entry: "Callable[..., dict[str, Any]]") -> Reply:
    """Do the work with one payload; an error is a reply as well."""
    try:
        return work()
    except (LpmangleError, OSError, MemoryError) as error:
        return failed(payload, error, entry)


def say(reply: Reply) -> None:
    """Print it, except the JSON."""
    for line in reply.err:
        print_line(line, err=True)
    for line in reply.out:
        print_line(line)
