"""Dependency files, as compilers write them for make and ninja: `output: input`."""

import os
import re

from lpmangle import elf
from lpmangle.errors import FileError
from lpmangle.manifest import format as manifest_format
from lpmangle.system import files

# make and ninja agree on these: characters that mean themselves, and those that do after a backslash. Backslashes
# before one of the latter are doubled, others mean themselves; a dollar is doubled.
_SAFE = re.compile(r"([\w+,/.~{}@!\[\]$ #:-]|\\(?!\Z))+")
_SPECIAL = re.compile(r"(\\*)([ #:])")


def check_depfile(path: str, *others: str) -> None:
    """Raise FileError if a rule at `path` would overwrite one of the other files, or a payload or manifest."""
    start = files.start_of(path)
    needed = path in map(os.path.realpath, others)
    if needed or start.startswith(elf.ELFMAG) or manifest_format.begins(start):
        raise FileError(
            "is not a dependency file: not replaced",
            path=path,
            hint="name another file with --depfile, or remove this one",
        )


def rule(output: str, *sources: str) -> bytes:
    """The rule that `output` is made from `sources`. Raises FileError for a name that no rule can contain."""
    return f"{_escaped(output)}: {' '.join(map(_escaped, sources))}\n".encode("utf-8", "surrogateescape")


def _escaped(path: str) -> str:
    if not _SAFE.fullmatch(path):
        raise FileError("make and ninja do not both accept this name in a dependency file", path=path)
    return _SPECIAL.sub(r"\1\1\\\2", path).replace("$", "$$")
