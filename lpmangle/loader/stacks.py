"""The file that lists what each host of a fleet has loaded."""

import json
import os
from typing import NamedTuple

from lpmangle.errors import PayloadError


class Stack(NamedTuple):
    """What one host has loaded and applied, in that order: paths of payloads."""

    name: str
    paths: tuple[str, ...]


def read_stacks(text: str, folder: str) -> list[Stack]:
    """The stacks in a stack file; paths are relative to `folder`. Raises PayloadError.

    As text: one payload per line, a blank line between stacks; a line `# NAME` names the stack, and alone is a host
    with nothing loaded. As JSON: a list of lists of paths, or an object of lists by name.
    """
    stacks = _from_json(text) if text.lstrip()[:1] in ("[", "{") else _from_text(text)
    if not stacks:
        raise PayloadError("lists no stack")
    return [
        Stack(name or f"stack {number}", tuple(os.path.join(folder, path) for path in paths))
        for number, (name, paths) in enumerate(stacks, 1)
    ]


def _from_text(text: str) -> list[tuple[str, list[str]]]:
    stacks: list[tuple[str, list[str]]] = []
    name, paths = "", list[str]()
    for line in [*map(str.strip, text.splitlines()), ""]:
        if line.startswith("#"):
            name = name or line.lstrip("# ")
        elif line:
            paths.append(line)
        elif name or paths:
            stacks.append((name, paths))
            name, paths = "", []
    return stacks


def _from_json(text: str) -> list[tuple[str, list[str]]]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise PayloadError(f"is neither a list of payloads nor JSON: {error}") from None
    stacks = list(content.items()) if isinstance(content, dict) else [("", paths) for paths in content]
    for name, paths in stacks:
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise PayloadError(f"a stack is a list of paths, {name or 'one'} is not")
    return stacks
