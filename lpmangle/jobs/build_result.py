"""Which payload did a run of livepatch-build make? By the tool's own rules; where they do not tell, by looking.

The rules are those of the script livepatch-build (livepatch-build-tools): it leaves $OUTPUT/$PATCHNAME.livepatch, where
PATCHNAME is made out of the patch's file name (`payload_names`). Some vendors run it under another name or from a
script of their own; then the one *.livepatch that the command has written is the result.
"""

import getopt
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from lpmangle.errors import BuildError

TOOL = "livepatch-build"
ENDING = ".livepatch"
# PATCHNAME is cut to 48 characters; to 128 in XenServer's and XCP-ng's copies.
NAME_LIMITS = (48, 128)
# All options of all versions, as livepatch-build gives them to getopt(1).
_SHORT = "hs:p:c:o:j:k:d"
_LONG = (
    *("help", "srcdir=", "patch=", "config=", "output=", "cpus=", "skip=", "debug", "xen-debug", "xen-syms="),
    *("depends=", "xen-depends=", "prelink", "strip"),
)
# Both spellings of the options that matter here.
_SAME = {"--output": "o", "-o": "o", "--patch": "p", "-p": "p", "--skip": "k", "-k": "k", "--help": "h", "-h": "h"}
# What an error names, and how many options nobody knows we put up with.
_MOST_NAMES = 8
_MOST_UNKNOWN = 50


class Arguments(NamedTuple):
    """The options that decide where the result is. An option that was not given is empty."""

    output: str = ""
    patch: str = ""
    skip: str = ""
    help: bool = False

    @property
    def makes_a_payload(self) -> bool:
        """Not with -k diff, which only builds, nor with --help."""
        return self.skip != "diff" and not self.help


def read_arguments(command: Sequence[str]) -> Arguments:
    """The options in a command line that runs livepatch-build, itself or through env, nice, a shell's `-x` ..."""
    start = next((at for at, word in enumerate(command) if os.path.basename(word) == TOOL), 0)
    words, short, long = list(command[start + 1 :]), _SHORT, list(_LONG)
    for _ in range(_MOST_UNKNOWN):
        try:
            options, _ = getopt.gnu_getopt(words, short, long)
            break
        except getopt.GetoptError as error:
            # An option of a copy that we do not know, or a mistake, which the tool itself will refuse.
            if len(error.opt) == 1:
                short += error.opt
            else:
                long.append(error.opt + "=" * any(word.startswith(f"--{error.opt}=") for word in words))
    else:
        return Arguments()
    # Of an option that is repeated the last one counts, in whatever spelling.
    found = {_SAME.get(option, option): value for option, value in options}
    return Arguments(found.get("o", ""), found.get("p", ""), found.get("k", ""), "h" in found)


def payload_names(patch: str) -> list[str]:
    """The file names that livepatch-build may give to the payload of a patch, without their folder.

    Without what follows the last dot if the name has a .patch or .diff in it, all but letters, digits, _ and - made -,
    cut. One version or another follows a symbolic link to the patch first, or takes a character that is no ASCII for as
    many as it has bytes.
    """
    names: dict[str, None] = {}
    for path in (patch, os.path.realpath(patch)):
        stem = os.path.basename(path)
        if ".patch" in stem or ".diff" in stem:
            stem = stem.rpartition(".")[0]
        for text in (stem, os.fsencode(stem).decode("latin-1")):
            cleaned = re.sub(r"[^a-zA-Z0-9_-]", "-", text)
            names |= {cleaned[:limit] + ENDING: None for limit in NAME_LIMITS}
    return list(names)


class Search:
    """Made before the command runs, asked when it has ended."""

    def __init__(self, command: Sequence[str], result: str | None = None) -> None:
        """`result` is the payload's path if a user has said it."""
        self._arguments = arguments = read_arguments(command)
        self._given = result
        self._folder = os.path.realpath(arguments.output or ".")
        names = payload_names(arguments.patch) if arguments.output and arguments.patch else []
        self._expected = [os.path.join(self._folder, name) for name in names]
        self._before = {} if result else _states(self._folder)

    def result(self) -> str | None:
        """The payload that the command has made; None if it was not to make any. Raises BuildError."""
        if self._given:
            if not os.path.exists(self._given):
                raise BuildError("was not made by the command", path=self._given)
            return self._given
        if not self._arguments.makes_a_payload:
            return None
        written = [path for path, state in sorted(_states(self._folder).items()) if self._before.get(path) != state]
        # A tool that found its work done before has written nothing; its rules still say which file that is.
        for candidates in (
            [path for path in self._expected if path in written],
            written,
            [path for path in self._expected if os.path.exists(path)],
        ):
            if len(candidates) == 1:
                return os.path.relpath(candidates[0]) if not os.path.isabs(self._arguments.output) else candidates[0]
            if candidates:
                raise self._several(candidates)
        raise self._none()

    def _several(self, paths: list[str]) -> BuildError:
        return BuildError(
            f"the command wrote {len(paths)} payloads, one was expected: {_listed(paths)}",
            hint="say which it is with --result FILE, or mangle them afterwards: lpmangle PAYLOAD...",
        )

    def _none(self) -> BuildError:
        looked_for = f"a new *{ENDING} in {self._folder}"
        if self._expected:
            looked_for = f"{_listed(self._expected)}, or {looked_for}"
        return BuildError(
            f"the command ended well but left no payload; looked for {looked_for}",
            hint="say where the payload is with --result FILE",
        )


def _states(folder: str) -> dict[str, tuple[int, ...]]:
    """The payloads below `folder`, and what tells whether one was written since."""
    states: dict[str, tuple[int, ...]] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            if name.endswith(ENDING):
                path = os.path.join(place, name)
                try:
                    state = os.stat(path)
                except OSError:  # a dangling link, or gone
                    continue
                states[path] = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    return states


def _listed(paths: list[str]) -> str:
    more = f" and {len(paths) - _MOST_NAMES} more" if len(paths) > _MOST_NAMES else ""
    return ", ".join(paths[:_MOST_NAMES]) + more
