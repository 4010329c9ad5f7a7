"""The command line of livepatch-build (livepatch-build-tools), and what its payload is called.

It leaves $OUTPUT/$PATCHNAME.livepatch, where PATCHNAME is made from the patch's file name.
"""

import getopt
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

ENDING = ".livepatch"
# PATCHNAME is cut to 48 characters; to 128 in XenServer's and XCP-ng's copies.
NAME_LIMITS = (48, 128)
# Itself, or a copy beside another one: livepatch-build.real, livepatch-build-4.17.
_NAME = re.compile(r"livepatch-build([.-].*)?", re.DOTALL)
# All options of all versions, as livepatch-build gives them to getopt(1).
_SHORT = "hs:p:c:o:j:k:d"
_LONG = (
    *("help", "srcdir=", "patch=", "config=", "output=", "cpus=", "skip=", "debug", "xen-debug", "xen-syms="),
    *("depends=", "xen-depends=", "prelink", "strip"),
)
# Both spellings of the options that matter here.
_SAME = {"--output": "o", "-o": "o", "--patch": "p", "-p": "p", "--skip": "k", "-k": "k", "--help": "h", "-h": "h"}
# At most this many unknown options are tolerated.
_MOST_UNKNOWN = 50


class Arguments(NamedTuple):
    """The options that decide where the result is. An option that was not given is empty."""

    output: str = ""
    patch: str = ""
    skip: str = ""
    help: bool = False

    @property
    def makes_a_payload(self) -> bool:
        """False with -k diff, which only builds, and with --help."""
        return self.skip != "diff" and not self.help


def is_livepatch_build(name: str) -> bool:
    """Whether a program of that name, without its folder, is the tool."""
    return _NAME.fullmatch(name) is not None


def read_arguments(words: Sequence[str]) -> Arguments:
    """The options among the words after the tool's name."""
    words, short, long = list(words), _SHORT, list(_LONG)
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
    # The last of a repeated option counts, in whatever spelling.
    found = {_SAME.get(option, option): value for option, value in options}
    return Arguments(found.get("o", ""), found.get("p", ""), found.get("k", ""), "h" in found)


def payload_names(patch: str) -> list[str]:
    """The file names that livepatch-build may give to the payload of a patch, without their folder.

    The part from the last dot is removed if the name contains .patch or .diff; all characters except letters, digits, _
    and - become -; then the name is cut. Some versions first follow a symbolic link to the patch, or treat a non-ASCII
    character as several characters, one for each byte.
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
