"""Dependency files, as compilers write them for make and ninja: `output: input`."""

import os
import re

from lpmangle import elf
from lpmangle.errors import FileError
from lpmangle.manifest import format as manifest_format
from lpmangle.system import files

# make and ninja agree on these: what stands for itself, and what does so behind a backslash. Backslashes before such a
# one are doubled, others stand for themselves; a dollar is doubled.
_SAFE = re.compile(r"([\w+,/.~{}@!\[\]$ #:-]|\\(?!\Z))+")
_SPECIAL = re.compile(r"(\\*)([ #:])")


def check_depfile(path: str, *others: str) -> None:
    """Raise FileError if the rule at `path` would cost one of the other files, or a payload or manifest."""
    start = files.start_of(path)
    needed = path in map(os.path.realpath, others)
    if needed or start.startswith(elf.ELFMAG) or manifest_format.begins(start):
        raise FileError(
            "is no dependency file: not replaced",
            path=path,
            hint="name another file with --depfile, or remove this one",
        )


def rule(output: str, *sources: str) -> bytes:
    """The rule that says that `output` is made of `sources`. Raises FileError for a name that no rule can hold."""
    return f"{_escaped(output)}: {' '.join(map(_escaped, sources))}\n".encode("utf-8", "surrogateescape")


def _escaped(path: str) -> str:
    if not _SAFE.fullmatch(path):
        raise FileError("make and ninja do not both take this name in a dependency file", path=path)
    return _SPECIAL.sub(r"\1\1\\\2", path).replace("$", "$$")
