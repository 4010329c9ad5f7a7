"""The file that a log is copied to (`retrace -o`): written as it comes, like the output of a shell's `>`."""

import os
from collections.abc import Iterable

from lpmangle import elf
from lpmangle.errors import FileError
from lpmangle.manifest import format as manifest_format
from lpmangle.store.source import SQLITE_MAGIC
from lpmangle.system import files


def open_log(path: str, inputs: Iterable[str]) -> int:
    """A descriptor for writing to `path`; what was there is overwritten.

    Raises FileError, and changes nothing, if an input cannot be read, or if that file is an input, a payload, a
    manifest or a catalog.
    """
    for one in inputs:
        try:
            same = os.path.exists(path) and os.path.samestat(os.stat(one), os.stat(path))
            os.close(os.open(one, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        except OSError as error:
            raise FileError(f"cannot read: {error.strerror}", path=one) from None
        if same:
            raise FileError("is an input: not replaced", path=path, hint="name another file with -o")
    if files.kind(path) == files.REGULAR:
        start = files.start_of(path)
        if start.startswith((elf.ELFMAG, SQLITE_MAGIC)) or manifest_format.begins(start):
            raise FileError("is not a log: not replaced", path=path, hint="name another file with -o")
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise FileError(f"cannot write: {error.strerror}", path=path) from None
