"""The command line: what its words mean. Only here do errors become messages and exit codes."""

import gc
import io
import os
import sys

from lpmangle.cli.commands import COMMANDS, DEFAULT_COMMAND, QUERY, RETRACE
from lpmangle.cli.output import error_lines, forget_stdout, note_lines, print_line
from lpmangle.errors import LpmangleError
from lpmangle.system.light import Callable, Sequence, signal
from lpmangle.system.records import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn


def main() -> "NoReturn":
    """Entry point of the console script."""
    gc.disable()  # nothing of what is loaded becomes garbage, so it need not be searched, now or later
    act = _meant_by(sys.argv[1:])
    gc.freeze()
    gc.enable()
    # Leave through Python, so that temporary files are removed.
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a name shows it escaped
            stream.reconfigure(errors="backslashreplace")
    status = _status_of(act)
    if "lief" not in sys.modules:  # whose own exit needs the collector
        gc.freeze()  # the process ends here, and a last garbage collection takes a twelfth of a short run
    sys.exit(status)


def run(words: Sequence[str]) -> int:
    """Do what the words of a command line say, and return the exit code."""
    return _status_of(_meant_by(words))


def _meant_by(words: Sequence[str]) -> Callable[[], int]:
    """What to do: a function that returns the exit code. click is loaded only if it has to read the words."""
    command = words[0] if words and words[0] in COMMANDS else DEFAULT_COMMAND
    # No command loads what only another one needs.
    if command == DEFAULT_COMMAND:
        from lpmangle.cli import common_call
        from lpmangle.cli.mangle_one import mangle_one

        if call := common_call.read(words, os.environ):
            return lambda: mangle_one(call.payload, call.options, call.wanted)
    if command == QUERY:
        from lpmangle.cli import common_query

        if asked := common_query.read(words, os.environ):
            from lpmangle.cli.query_answer import answer

            return lambda: answer(*asked)
    if command == RETRACE:
        from lpmangle.cli import common_retrace

        if traced := common_retrace.read(words, os.environ):
            from lpmangle.cli.retrace_log import put_back

            return lambda: put_back(traced)
    from lpmangle.cli import group

    return lambda: group.run(words)


def _status_of(act: Callable[[], int]) -> int:
    """Call `act`; an error becomes a message and an exit code."""
    try:
        return act()
    except KeyboardInterrupt:
        print_line("", err=True)  # after the ^C that the terminal shows
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output has gone; the work on files was done before anything was printed.
        forget_stdout()
        return 0
    except (LpmangleError, OSError, MemoryError) as error:
        lines, status = error_lines(error)
        if isinstance(error, OSError) and not error.filename:
            forget_stdout()
        for line in (*lines, *note_lines(error)):
            print_line(line, err=True)
        return status


def _terminate(number: int, frame: "FrameType | None") -> "NoReturn":
    sys.exit(128 + number)
