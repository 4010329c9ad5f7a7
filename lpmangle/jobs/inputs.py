"""Which payloads some paths lead to: a file is one payload, however many paths lead to it."""

import os
from collections.abc import Iterable
from typing import NamedTuple

from lpmangle.system import files


class Input(NamedTuple):
    """A payload to be mangled: its path, and others that lead to the same file (hard links)."""

    path: str
    links: tuple[str, ...] = ()


def each_once(paths: Iterable[str]) -> list[Input]:
    """The payloads that `paths` lead to, in that order. Raises FileError if one leads to nothing."""
    found: dict[tuple[int, int], list[str]] = {}
    for path in paths:
        found.setdefault(files.identity(path), []).append(path)
    return [_one(several) for several in found.values()]


def _one(paths: list[str]) -> Input:
    """The file that all of them lead to: the first path that is not a symbolic link, and its hard links."""
    if len(paths) == 1:
        return Input(paths[0])
    path = next((path for path in paths if not os.path.islink(path)), paths[0])
    real = dict.fromkeys(map(os.path.realpath, paths))
    return Input(path, tuple(link for link in real if link != os.path.realpath(path)))
