"""Paths on the command line: one that makes no sense is refused before any work is done."""

import os
from typing import Any, ClassVar

import click

from lpmangle.cli.commands import missing_payload, refuse_command
from lpmangle.errors import FileError, WordError
from lpmangle.system import files

_UNKNOWN = ""  # who reads or writes it says why, with the right exit code


class FilePath(click.Path):
    """A path that is not empty, nor - if it is not to be a log; whether it can be read shows when it is.

    An empty one is an unset variable in somebody's script, and must not mean the default.
    """

    def __init__(self, *, log: bool = False) -> None:
        super().__init__(readable=False)
        self._log = log

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty", param, ctx)
        path = str(super().convert(value, param, ctx))
        if path == "-" and not self._log:
            raise WordError("is stdin or stdout, not a file", path=path, hint="a file of that name is ./-")
        self.check(path)
        return path

    def check(self, path: str) -> None:
        """Raise WordError if what is at `path` cannot be meant."""


class SourceWord(FilePath):
    """A source of manifests: a path or a URL."""

    def split_envvar_value(self, rv: str) -> list[str]:
        from lpmangle.store.open import split_words  # only for a variable that is set

        return split_words(rv)


class CommandText(click.types.StringParamType):
    """A command with its words; a variable has one on each line."""

    envvar_list_splitter: ClassVar[str] = "\n"


class WholeFilePath(FilePath):
    """The path of a file that is read and replaced as a whole, so no FIFO or device; there may be nothing yet."""

    def check(self, path: str) -> None:
        _check_regular(path, _kind(path))


class PayloadPath(FilePath):
    """A payload, which must be there; with `lists` also @FILE, which stands for several."""

    def __init__(self, *, lists: bool = False) -> None:
        super().__init__()
        self._lists = lists

    def check(self, path: str) -> None:
        if self._lists and path.startswith("@"):
            if path != "@-" and _kind(path[1:]) is None:
                raise WordError("there is no such file", path=path[1:] or path)
        else:
            refuse_command(path)
            check_payload(path)


class OutputPath(FilePath):
    """Where a file is to be written; with `folders` also a folder to write it to."""

    def __init__(self, *, folders: bool = False) -> None:
        super().__init__()
        self._folders = folders

    def check(self, path: str) -> None:
        kind = _kind(path)
        if kind == files.FOLDER and self._folders:
            return
        _check_regular(path, kind)
        if kind is None and (folder := os.path.dirname(path)):
            _check_folder(folder, _kind(folder))


class FolderPath(FilePath):
    """A folder to write to; there may be none yet, but there is one to make it in."""

    def check(self, path: str) -> None:
        kind = _kind(path)
        if kind is None:
            above = os.path.dirname(path.rstrip("/")) or "."
            _check_folder(above, _kind(above))
        elif kind not in (files.FOLDER, _UNKNOWN):
            raise WordError(f"is {kind}, not {files.FOLDER}", path=path)


def check_payload(path: str) -> None:
    """Raise WordError if no payload can be at `path`."""
    kind = _kind(path)
    if kind is None:
        raise missing_payload(path)
    _check_regular(path, kind)


def _check_regular(path: str, kind: str | None) -> None:
    if kind not in (files.REGULAR, None, _UNKNOWN):
        raise WordError(f"is {kind}, not {files.REGULAR}", path=path)


def _check_folder(path: str, kind: str | None) -> None:
    if kind is None:
        raise WordError("there is no such folder", path=path)
    if kind not in (files.FOLDER, _UNKNOWN):
        raise WordError(f"is {kind}, not {files.FOLDER}", path=path)


def _kind(path: str) -> str | None:
    try:
        return files.kind(path)
    except FileError:
        return _UNKNOWN
