"""What becomes of a payload that a build has made: mangled, approved, its manifest kept; all of it or nothing."""

import os
from collections.abc import Callable
from contextlib import closing

from lpmangle.errors import FileError, about
from lpmangle.jobs.mangle import Request, Result, prepare, until_unchanged
from lpmangle.system import files


def finish(
    request: Request, *, approve: Callable[[str, bytes], None] | None = None, catalog: str | None = None
) -> Result:
    """Mangle as `mangle_file` does; the manifest goes into the catalog at `catalog` as well, which is made if need be.

    `approve` gets the payload's path and what is to be written, and raises an error if it must not be. Raises
    LpmangleError; then the payload is as the linker left it, and all other files are as they were.
    """

    def work() -> Result:
        prepared = prepare(request, files.read(request.path))
        if approve:
            with about(request.path):
                approve(request.path, bytes(prepared.data))
        if catalog is None:
            prepared.write()
        else:
            from lpmangle.store.catalog import Catalog  # loads sqlite3

            with closing(Catalog(catalog, write=True)) as opened:
                prepared.write(opened)
        return prepared.result

    return until_unchanged(work)


def check_catalog(path: str) -> None:
    """Raise CatalogError or FileError if no manifest could be added to the catalog at `path`."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise FileError("there is no such folder", path=folder)
    if not os.access(folder, os.W_OK):  # SQLite's journal is there
        raise FileError("cannot write there", path=folder)
    if os.path.lexists(path):
        from lpmangle.store.catalog import Catalog  # loads sqlite3

        Catalog(path).close()
