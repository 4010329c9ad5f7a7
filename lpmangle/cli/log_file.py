"""The file that a log is copied to: an input must not be it."""

import os
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress

from lpmangle import elf
from lpmangle.errors import FileError
from lpmangle.manifest import format as manifest_format
from lpmangle.store.source import SQLITE_MAGIC
from lpmangle.system import files

STDIN = "-"
_ANOTHER = "name another file with -o"


def check_stdout(inputs: Iterable[str]) -> None:
    """Raises FileError if an input is the file that standard output goes to (`>>log`): reading it would never end."""
    if not sys.stdout or not stat.S_ISREG((output := os.fstat(sys.stdout.fileno())).st_mode):
        return
    for one in inputs:
        with suppress(OSError):  # it is reported when the input is read
            if _is(one, output):
                raise FileError("is where the output goes: nothing was copied", path=_name(one), hint=_ANOTHER)


def open_log(path: str, inputs: Iterable[str]) -> int:
    """A descriptor for writing to `path` as it comes, like the output of a shell's `>`; what was there is overwritten.

    Raises FileError, and changes nothing, if an input cannot be read, or if that file is an input, a payload, a
    manifest or a catalog.
    """
    for one in inputs:
        try:
            same = os.path.exists(path) and _is(one, os.stat(path))
            if one != STDIN:
                os.close(os.open(one, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        except OSError as error:
            raise FileError(f"cannot read: {error.strerror}", path=_name(one)) from None
        if same:
            raise FileError("is an input: not replaced", path=path, hint=_ANOTHER)
    if files.kind(path) == files.REGULAR:
        start = files.start_of(path)
        if start.startswith((elf.ELFMAG, SQLITE_MAGIC)) or manifest_format.begins(start):
            raise FileError("is not a log: not replaced", path=path, hint=_ANOTHER)
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise FileError(f"cannot write: {error.strerror}", path=path) from None


def _is(one: str, output: os.stat_result) -> bool:
    """Whether an input is that file. Raises OSError."""
    if one != STDIN:
        return os.path.samestat(os.stat(one), output)
    return bool(sys.stdin) and os.path.samestat(os.fstat(sys.stdin.fileno()), output)


def _name(one: str) -> str:
    return one if one != STDIN else "standard input"
