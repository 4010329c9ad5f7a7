"""Which payloads does a command make? Told before it runs, by a user or by the command's own words.

Nothing is looked for: what else was written meanwhile may be another's.
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
    """Made before the command runs, asked when it has ended."""

    def __init__(self, command: Sequence[str], named: Sequence[str] = ()) -> None:
        """`named` are paths or patterns of payloads, if a user has said them. Raises ResultError."""
        self._named = named
        # For each payload the paths of which it is one.
        self._expected: list[list[str]] = [] if named else _told_by(command)

    @property
    def may_be_several(self) -> bool:
        """Whether more than one payload may be made."""
        return len(self._named) + len(self._expected) > 1 or any(map(glob.has_magic, self._named))

    def payloads(self) -> list[Input]:
        """What the command has made; nothing if it was not to make any. Raises BuildError, FileError."""
        paths = [path for pattern in self._named for path in _fitting(pattern)]
        return each_once([*paths, *map(_only_one, self._expected)])


def _told_by(command: Sequence[str]) -> list[list[str]]:
    """By the options -o and -p of livepatch-build."""
    expected = []
    found = calls(command, is_livepatch_build)
    for folder, words in found:
        arguments = read_arguments(words)
        if not arguments.makes_a_payload:
            continue
        if not (arguments.output and arguments.patch):
            raise ResultError(
                "livepatch-build needs both -o and -p, or it is not known which payload it will make", path=command[0]
            )
        output = os.path.join(folder, arguments.output)
        expected.append([os.path.join(output, name) for name in payload_names(os.path.join(folder, arguments.patch))])
    if not found:
        raise ResultError(
            "it is not known which payload this command will make",
            path=command[0],
            hint="name the payload with --result FILE, or --result 'out/*.livepatch'; only where livepatch-build is "
            "run, directly or by env, nice, sh -c and the like, its options -o and -p say it",
        )
    return expected


def _fitting(pattern: str) -> list[str]:
    """What is called so, else the files that fit the pattern, without the manifests of an earlier run."""
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
        f"the command ended well but left no payload; looked for {', '.join(paths)}",
        hint="say where the payload is with --result FILE",
    )
