"""Finish a payload that a build has made: mangle it, approve it, keep its manifest; everything or nothing."""

import os
import stat
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lpmangle.errors import FileError, about
from lpmangle.jobs.mangle import Request, prepare, until_unchanged
from lpmangle.jobs.result import Result
from lpmangle.system import files

if TYPE_CHECKING:
    from lpmangle.jobs.payload_command import PayloadCommand


class Steps(NamedTuple):
    """What is done with a payload besides mangling it.

    `before` and `after` are commands that change it before and after it is mangled. `approve` gets its path and the new
    content, and raises an error if that must not be written. The manifest is added to `catalog`, too, which is created
    if necessary.
    """

    before: "Sequence[PayloadCommand]" = ()
    after: "Sequence[PayloadCommand]" = ()
    approve: Callable[[str, bytes], None] | None = None
    catalog: str | None = None


def finish(request: Request, steps: Steps) -> Result:
    """Mangle as `mangle_file` does, with more steps. None of them changes a payload that was mangled before.

    Raises LpmangleError; then the payload is as the linker left it, and all other files are as they were.
    """
    return until_unchanged(lambda: _finish(request, steps))


def _finish(request: Request, steps: Steps) -> Result:
    file = files.read(request.path)
    mode = stat.S_IMODE(file.state.st_mode)
    prepared = prepare(request, file)
    change = not prepared.result.plan.already
    with about(request.path):
        if change and steps.before:
            data = prepared.original
            for command in steps.before:
                data = command.changed(data, file.path, mode)
            prepared = prepare(request, file, data)
        final = prepared.data
        for command in steps.after if change else ():
            final = command.changed(final, file.path, mode)
        if steps.approve:
            steps.approve(request.path, bytes(final))
    prepared.write(final, steps.catalog)
    return prepared.result


def check_catalog(path: str) -> None:
    """Raise CatalogError or FileError if no manifest could be added to the catalog at `path`."""
    if not os.access(os.path.dirname(path) or ".", os.W_OK):  # for SQLite's journal
        raise FileError("cannot write in its folder", path=path)
    if files.kind(path):
        from lpmangle.store.catalog_file import CatalogFile  # loads sqlite3

        CatalogFile(path, empty_ok=True)
