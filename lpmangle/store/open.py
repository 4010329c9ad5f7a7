"""Which source of manifests a word means: a manifest, a payload, a folder, a catalog, a debuginfod server."""

import os
import re
from collections.abc import Sequence

from lpmangle import elf
from lpmangle.errors import NoManifestError, NoSourceError, about
from lpmangle.manifest import embed
from lpmangle.store import local
from lpmangle.store.local import LocalSource
from lpmangle.store.source import SQLITE_MAGIC, Found, Source, Sources
from lpmangle.system import files
from lpmangle.system.files import sha256
from lpmangle.xen.payload import Payload

# An entry of LPMANGLE_MANIFESTS: a URL with its port, if it has one, or a path.
_ENTRY = re.compile(r"https?://(?:\[[^]]*\]|[^:/]*)(?::[0-9]+)?[^:]*|[^:]+")
HINT = "say where it is with -m, or in LPMANGLE_MANIFESTS"


def open_sources(words: Sequence[str]) -> Sources:
    """The sources that `words` name; if there are none, those of the environment.

    Raises FileError, ManifestError or CatalogError for a word that is no source, NoSourceError if there is none at all.
    """
    words = words or from_environment()
    if not words:
        raise NoSourceError("no manifests to look into", hint="name some with -m, or in LPMANGLE_MANIFESTS")
    paths: list[str] = []
    others: list[Source] = []
    urls = [word for word in words if word.startswith(("http://", "https://"))]
    for word in words:
        if word in urls:
            continue
        if not os.path.isdir(word) and _is_database(word):
            from lpmangle.store.catalog import Catalog  # sqlite3

            others.append(Catalog(word))
        else:
            paths.append(word)
    if urls:
        from lpmangle.store.debuginfod import DebuginfodSource  # urllib

        others.append(DebuginfodSource(urls))
    if paths:
        others.insert(0, LocalSource(paths))
    return Sources(others)


def with_servers(sources: Sources) -> Sources:
    """The same, and the servers of DEBUGINFOD_URLS: debug information is not always where the manifests are."""
    urls = os.environ.get("DEBUGINFOD_URLS", "").split()
    if not urls:
        return sources
    from lpmangle.store.debuginfod import DebuginfodSource  # urllib

    return Sources([*sources.sources, DebuginfodSource(urls)])


def from_environment() -> list[str]:
    """LPMANGLE_MANIFESTS (separated by colons, those in URLs aside) and DEBUGINFOD_URLS (by blanks)."""
    return _ENTRY.findall(os.environ.get("LPMANGLE_MANIFESTS", "")) + os.environ.get("DEBUGINFOD_URLS", "").split()


def of_payload(payload: files.File, name: str, word: str | None = None) -> Found:
    """The manifest of one payload: from the source `word`; else from inside it, beside it, or from the environment.

    `name` is the payload as the user calls it. Raises NoManifestError if there is none.
    """
    if word is None:
        found = local.inside(payload.data, name) or local.beside(name, payload.data)
        if found:
            return found
        if not from_environment():
            raise NoManifestError(local.missing(name), path=name, hint=HINT)
    elif is_single(word):
        return local.load(files.fitting(word, payload.data))
    return _choose(open_sources([word] if word else []), payload, name)


def _choose(sources: Sources, payload: files.File, name: str) -> Found:
    """The manifest with the payload's build-id; where there are several, the one with its digest."""
    with about(name):
        view = elf.parse(payload.data)
        build_id = Payload(view).build_id
    several = list(sources.with_build_id(build_id.hex())) if build_id else []
    digest = sha256(embed.without(view).data)
    for found in several:
        if digest in (found.manifest.output.sha256, found.manifest.input.sha256):
            return found
    if not several:
        raise NoManifestError(
            f"no manifest with its build-id ({build_id and build_id.hex()}) was found", path=name, hint=HINT
        )
    return several[0]


def is_single(word: str) -> bool:
    """Whether a source is one payload or one manifest."""
    return os.path.isfile(word) and not _is_database(word)


def _is_database(path: str) -> bool:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            return file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC
    except OSError:
        return False  # what is wrong with it is said by who reads it
