"""Finds a tool in a command line: run directly, or through env, nice, a shell and the like.

Only what the words say for certain counts. An unknown program may run the tool elsewhere (ssh, docker) or not at all,
and the content of a script file or a `$` variable is not known.
"""

import getopt
import os
import re
import shlex
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Call(NamedTuple):
    """The tool is run in `folder`, relative to where the command line is run, with these words after its name."""

    folder: str
    words: list[str]


class _Wrapper(NamedTuple):
    """How a program that runs another one reads its words, as for `getopt`; `operands` come before the other one."""

    short: str = ""
    long: tuple[str, ...] = ()
    operands: int = 0


# Those of coreutils and util-linux, time(1), and two built into shells.
_WRAPPERS = {
    "command": _Wrapper(),
    "env": _Wrapper("iu:C:", ("ignore-environment", "unset=", "chdir=")),
    "exec": _Wrapper(),
    "ionice": _Wrapper("c:n:t", ("class=", "classdata=", "ignore")),
    "nice": _Wrapper("n:0123456789", ("adjustment=",)),
    "nohup": _Wrapper(),
    "stdbuf": _Wrapper("i:o:e:", ("input=", "output=", "error=")),
    "taskset": _Wrapper("ac", ("all-tasks", "cpu-list"), 1),
    "time": _Wrapper("apqvf:o:", ("append", "portability", "quiet", "verbose", "format=", "output=")),
    "timeout": _Wrapper("fpk:s:v", ("foreground", "preserve-status", "kill-after=", "signal=", "verbose"), 1),
}
_SHELLS = ("sh", "bash", "dash", "ksh")
_SHELL = _Wrapper("abcefhiklmnprtuvxo:", ("login", "noprofile", "norc", "posix", "verbose"))
_ASSIGNMENT = re.compile(r"\w+=.*", re.DOTALL)
# What a shell replaces, or reads in its own way.
_NOT_PLAIN = set("$`\\\n*?[{~#!")
_NEXT_COMMAND = ("&&", ";")
_REDIRECTIONS = (">", ">>", "<", ">&")
_OPERATORS = "();<>|&"


def calls(words: Sequence[str], is_tool: Callable[[str], bool], folder: str = "") -> list[Call]:
    """Where and how `words` run a tool, which is known by its file name; empty if that is not certain."""
    rest = list(words)
    while rest:
        name, *rest = rest
        name = os.path.basename(name)
        if is_tool(name):
            return [Call(folder, rest)]
        wrapper = _SHELL if name in _SHELLS else _WRAPPERS.get(name)
        if wrapper is None:
            return []
        try:
            options, rest = getopt.getopt(rest, wrapper.short, wrapper.long)
        except getopt.GetoptError:
            return []
        if wrapper is _SHELL:
            if ("-c", "") in options:
                return _calls_in_script(rest[0], is_tool, folder) if rest else []
            if not (rest and is_tool(os.path.basename(rest[0]))):  # another script
                return []
        if name == "env":
            folder = os.path.join(folder, *(value for option, value in options if option in ("-C", "--chdir")))
            rest = _without_assignments(rest)
        rest = rest[wrapper.operands :]
    return []


def _calls_in_script(script: str, is_tool: Callable[[str], bool], folder: str) -> list[Call]:
    """The same for the argument of `sh -c`, if it consists only of such commands and `cd`, one after the other."""
    found: list[Call] = []
    for command in _commands(script):
        match command:
            case []:
                continue
            case ["cd", place] if not place.startswith("-"):
                folder = os.path.join(folder, place)
            case _:
                here = calls(command, is_tool, folder)
                if not here:
                    return []
                found += here
    return found


def _commands(script: str) -> list[list[str]]:
    """The words of each command, without assignments and redirections; empty if the shell does more than that."""
    if _NOT_PLAIN & set(script):
        return []
    lexer = shlex.shlex(script, posix=True, punctuation_chars=_OPERATORS)
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    try:
        for token in lexer:
            if token in _NEXT_COMMAND:
                commands.append([])
            elif token in _REDIRECTIONS:  # a number before it stays, as an operand
                next(lexer, None)
            elif token[:1] in _OPERATORS and token:
                return []
            else:
                commands[-1].append(token)
    except ValueError:  # a quote is not closed
        return []
    return [_without_assignments(words) for words in commands]


def _without_assignments(words: list[str]) -> list[str]:
    while words and _ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    return words
