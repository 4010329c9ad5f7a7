"""Which payloads will a command build? A user says it before the command runs, or the command's own words do.

lpmangle does not search for payloads: a file that was written meanwhile may belong to somebody else.
"""

import glob
import os
from collections.abc import Sequence

from lpmangle.errors import BuildError, ResultError
from lpmangle.jobs.command_line import calls
from lpmangle.jobs.inputs import Input, each_once
from lpmangle.jobs.livepatch_build import is_livepatch_build, payload_names, read_arguments
from lpmangle.manifest.format import ENDING
from lpmangle.system import files


class BuildResult:
    """Made before the command runs, used after it has ended."""

    def __init__(self, command: Sequence[str], named: Sequence[str] = ()) -> None:
        """`named` are paths or patterns of payloads, if a user gave them. Raises ResultError."""
        self._named = named
        # For each payload, the paths where it may be.
        self._expected: list[list[str]] = [] if named else _told_by(command)

    @property
    def may_be_several(self) -> bool:
        """Whether more than one payload may be built."""
        return len(self._named) + len(self._expected) > 1 or any(map(glob.has_magic, self._named))

    def payloads(self) -> list[Input]:
        """The payloads that the command has built; none if it builds none. Raises BuildError, FileError."""
        paths = [path for pattern in self._named for path in _fitting(pattern)]
        return each_once([*paths, *map(_only_one, self._expected)])


def _told_by(command: Sequence[str]) -> list[list[str]]:
    """What the options -o and -p of livepatch-build say."""
    expected = []
    found = calls(command, is_livepatch_build)
    for folder, words in found:
        arguments = read_arguments(words)
        if not arguments.makes_a_payload:
            continue
        if not (arguments.output and arguments.patch):
            raise ResultError(
                "livepatch-build needs -o and -p: without both, the payload that it will build is not known",
                path=command[0],
            )
        output = os.path.join(folder, arguments.output)
        expected.append([os.path.join(output, name) for name in payload_names(os.path.join(folder, arguments.patch))])
    if not found:
        raise ResultError(
            "the payload that this command will build is not known",
            path=command[0],
            hint="name the payload with --result FILE, or --result 'out/*.livepatch'; only where livepatch-build is "
            "run, directly or by env, nice, sh -c and the like, its options -o and -p say it",
        )
    return expected


def _fitting(pattern: str) -> list[str]:
    """The file of that name, else the files that match the pattern, except manifests of an earlier run."""
    if files.kind(pattern):
        return [pattern]
    found = sorted(glob.glob(pattern, recursive=True))
    paths = [path for path in found if not path.endswith(ENDING) and not os.path.isdir(path)]
    if not paths:
        raise BuildError("was not made by the command", path=pattern)
    return paths


def _only_one(paths: list[str]) -> str:
    there = [path for path in paths if files.kind(path)]
    if len(there) == 1:
        return there[0]
    if there:
        raise BuildError(
            f"the payload is one of {len(there)}: {', '.join(there)}", hint="say which it is with --result FILE"
        )
    raise BuildError(
        f"the command succeeded but left no payload; looked for {', '.join(paths)}",
        hint="say where the payload is with --result FILE",
    )
