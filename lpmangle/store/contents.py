"""All manifests that a word on the command line leads to, to be added to a catalog."""

import os
import re
from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

from lpmangle.errors import NoManifestError, NoSourceError
from lpmangle.store import local
from lpmangle.store.open import is_catalog, is_url
from lpmangle.store.source import Found
from lpmangle.system import files

# A debuginfod server's path, with or without the section after it (debuginfod(8), WEBAPI).
_BUILD_ID_URL = re.compile(r"(.+)/buildid/([0-9a-f]{40})(?:/section/[^/]+)?/?")


class Contents(NamedTuple):
    """Manifests, and how many there are at most."""

    manifests: Iterable[Found]
    most: int


def contents(word: str, catalog: str) -> Contents:
    """The manifests of a file, a payload, a folder of either, another catalog, or under a URL with a build-id.

    A file that is named is read at once, and the first manifest of each folder. `catalog` is the one that will keep
    them. Raises LpmangleError for a word that leads to no manifest.
    """
    if is_url(word):
        return Contents([_from_server(word)], 1)
    if os.path.isdir(word):
        listed = list(local.paths_in(word))
        sound = filter(None, map(local.sound, listed))
        first = next(sound, None)
        if first is None:
            raise NoManifestError("there is no manifest in this folder, and no payload with one inside", path=word)
        return Contents(chain([first], sound), len(listed))
    if is_catalog(word):
        from lpmangle.store.catalog import Catalog  # sqlite3

        opened = Catalog(word)
        if os.path.exists(catalog) and files.identity(word) == files.identity(catalog):
            raise NoSourceError("is the catalog itself", path=word)
        return Contents(opened.manifests(), len(opened))
    found = local.load(word)
    found.manifest  # noqa: B018
    return Contents([found], 1)


def _from_server(url: str) -> Found:
    from lpmangle.store.debuginfod import DebuginfodSource, server_at  # urllib

    asked = _BUILD_ID_URL.fullmatch(url)
    server = server_at(asked[1] if asked else url)
    if not server:
        raise NoSourceError("is not the URL of a debuginfod server", path=url)
    if not asked:
        hint = f"name the payload's build-id: {server.url}/buildid/BUILD-ID"
        raise NoSourceError("a debuginfod server cannot be listed", path=url, hint=hint)
    for found in DebuginfodSource([server]).with_build_id(asked[2]):
        return found
    raise NoManifestError("there is no manifest of a payload with this build-id", path=url)
