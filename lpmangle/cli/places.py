"""What is at a path on the command line: what cannot be right is refused before any work is done."""

import os

from lpmangle.cli.commands import missing_payload
from lpmangle.errors import FileError, WordError
from lpmangle.system import files

_UNKNOWN = ""  # whoever reads or writes it will say why, with the right exit code


def check_payload(path: str, *, or_command: bool = False) -> None:
    """Raise WordError if no payload can be at `path`; with `or_command` it may be a misspelt command."""
    kind = _kind(path)
    if kind is None:
        raise missing_payload(path) if or_command else WordError("there is no such file", path=path)
    _check_regular(path, kind)


def check_list(word: str) -> None:
    """Raise WordError if the list of payloads that @FILE names does not exist."""
    if word != "@-" and _kind(word[1:]) is None:
        raise WordError("there is no such file", path=word[1:] or word)


def check_output(path: str, *, folders: bool) -> None:
    """Raise WordError if no file can be written to `path`, or, with `folders`, to the folder there."""
    kind = _kind(path)
    if kind == files.FOLDER and folders:
        return
    _check_regular(path, kind)
    if kind is None and (folder := os.path.dirname(path)):
        _check_folder(folder, _kind(folder))


def check_folder(path: str) -> None:
    """Raise WordError if there is no folder at `path` and none can be created."""
    kind = _kind(path)
    if kind is None:
        above = os.path.dirname(path.rstrip("/")) or "."
        _check_folder(above, _kind(above))
    else:
        _check_folder(path, kind)


def check_whole_file(path: str) -> None:
    """Raise WordError if what is at `path` cannot be read and replaced as a whole."""
    _check_regular(path, _kind(path))


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
