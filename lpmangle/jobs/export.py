"""Write the manifests of a catalog to files."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress

from lpmangle.errors import FileError
from lpmangle.manifest.format import ENDING
from lpmangle.store.catalog import Catalog, Entry
from lpmangle.system import files, writing

# The payload's name in a manifest may not be valid as a file name.
_NO_NAME = re.compile(r"[/\0-\x1f\x7f]")
_DIGITS = 8  # of a digest, to tell manifests of one payload apart


def export(catalog: Catalog, entries: Sequence[Entry], folder: str) -> list[str]:
    """Write the manifests of `entries` into a folder, byte for byte as they were added: all or none. Returns the paths.

    The folder is created if it does not exist. Each has the name that `lpmangle --manifest FOLDER` gives it: the
    payload's name and the build-id. If two would have the same name, the manifest's digest is appended. A file with the
    same content stays as it is. Raises FileError, also if another file is in the place of a manifest.
    """
    named = _names(catalog, entries)
    paths = {os.path.join(folder, name): entry for name, entry in named.items()}
    if not os.path.isdir(folder):
        try:
            os.mkdir(folder)
        except OSError as error:
            raise FileError(f"cannot create this folder: {error.strerror}", path=folder) from None
        is_new = True
    else:
        is_new = False
    try:
        missing = [path for path, entry in paths.items() if not _is_there(path, catalog, entry)]
        if missing:
            writing.replace([writing.Output(files.resolve(path), _pieces(catalog, paths[path])) for path in missing])
    except BaseException:
        if is_new:
            with suppress(OSError):
                os.rmdir(folder)
        raise
    return list(paths)


def _names(catalog: Catalog, entries: Sequence[Entry]) -> dict[str, Entry]:
    plain = [_name(entry) for entry in entries]
    count = Counter(plain)
    named = {}
    for name, entry in zip(plain, entries, strict=True):
        if count[name] > 1:
            name += "-" + files.sha256(catalog.found(entry).text)[:_DIGITS]
        while name + ENDING in named:  # another payload has that name
            name += "+"
        named[name + ENDING] = entry
    return named


def _name(entry: Entry) -> str:
    name = _NO_NAME.sub("_", entry.payload + (f"-{entry.build_id}" if entry.build_id else ""))
    room = writing.NAME_MAX - len(ENDING) - 2 * _DIGITS
    return os.fsencode(name)[-room:].decode("utf-8", "ignore")


def _is_there(path: str, catalog: Catalog, entry: Entry) -> bool:
    if not os.path.lexists(path):
        return False
    if files.content(path) != catalog.found(entry).text:
        raise FileError("exists with different content: not replaced", path=path)
    return True


def _pieces(catalog: Catalog, entry: Entry) -> Iterator[bytes]:
    """Read only when it is written, so that not all manifests are in memory at once."""
    yield catalog.found(entry).text
