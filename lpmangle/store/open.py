"""Which source of manifests a word means: a manifest, a payload, a folder, a catalog, a debuginfod server."""

import os
import re
from collections.abc import Sequence
from functools import partial

from lpmangle import elf
from lpmangle.errors import FileError, LpmangleError, NoManifestError, NoSourceError, about
from lpmangle.manifest import embed
from lpmangle.manifest.belongs import belongs, fit
from lpmangle.store import local
from lpmangle.store.local import LocalSource
from lpmangle.store.source import SQLITE_MAGIC, Found, Source, Sources
from lpmangle.system import files, writing
from lpmangle.system.files import sha256
from lpmangle.xen.payload import Payload

# URLs are recognised by their scheme.
_URL = re.compile("(?:https?|file)://", re.IGNORECASE)
# An entry of a variable that names sources: a URL, perhaps with user and port, or a path.
_ENTRY = re.compile(rf"{_URL.pattern}(?:[^@/]*@)?(?:\[[^]]*\]|[^:/]*)(?::[0-9]+)?[^:]*|[^:]+", re.IGNORECASE)
HINT = "say where it is with -m, or in LPMANGLE_MANIFESTS"


def open_sources(words: Sequence[str], trouble: list[LpmangleError] | None = None) -> Sources:
    """The sources that `words` name; without words, those of the environment.

    Raises LpmangleError for a word that is not a source; with `trouble`, errors go there, also those of sources that
    fail later, and the others are still used. Raises NoSourceError if there are none.
    """
    servers = "" if words else _servers()
    words = words or named_in_environment()
    if not words and not servers:
        raise NoSourceError("no manifests to search", hint="name some with -m, or in LPMANGLE_MANIFESTS")
    sources: list[Source] = []
    for word in words:
        try:
            sources.append(_open(word))
        except LpmangleError as error:
            if trouble is None:
                raise
            trouble.append(error)
    if servers:
        from lpmangle.store.debuginfod import DebuginfodSource, servers_in  # urllib

        sources.append(DebuginfodSource(servers_in(servers), share_misses=True))
    return Sources(sources, trouble)


def _open(word: str) -> Source:
    if is_url(word):
        from lpmangle.store.debuginfod import DebuginfodSource, server_at  # urllib

        if server := server_at(word):
            return DebuginfodSource([server])
        raise NoSourceError("is not the URL of a debuginfod server", path=word)
    if not os.path.isdir(word) and is_catalog(word):
        from lpmangle.store.catalog import Catalog  # sqlite3

        return Catalog(word)
    if ":" in word and not os.path.lexists(word):
        hint = "the URL of a debuginfod server begins with http://, https:// or file://"
        raise FileError("cannot read: No such file or directory", path=word, hint=hint)
    return LocalSource(word)


def with_servers(sources: Sources) -> Sources:
    """The same with the servers of DEBUGINFOD_URLS: debug information may be elsewhere than the manifests."""
    if not _servers():
        return sources
    from lpmangle.store.debuginfod import DebuginfodSource, servers_in  # urllib

    return Sources([*sources.sources, DebuginfodSource(servers_in(_servers()), share_misses=True)], sources.trouble)


def has_servers(words: Sequence[str]) -> bool:
    """Whether a debuginfod server is among the sources that `words` name; without words, those of the environment."""
    return any(map(_URL.match, words or named_in_environment())) or (not words and bool(_servers()))


def named_in_environment() -> list[str]:
    """What LPMANGLE_MANIFESTS names."""
    return split_words(os.environ.get("LPMANGLE_MANIFESTS", ""))


def split_words(variable: str) -> list[str]:
    """The sources that a variable names, separated by colons, except those in URLs."""
    words: list[str] = _ENTRY.findall(variable)
    return words


def _servers() -> str:
    return os.environ.get("DEBUGINFOD_URLS", "").strip()


def of_payload(payload: files.File, name: str, word: str | None = None) -> Found:
    """The manifest of one payload: from the source `word`; else from inside it, beside it, or from the environment.

    `name` is the payload as the user calls it. Raises NoManifestError if there is none.
    """
    if word is None:
        found = local.inside(payload.data, name) or local.beside(name, payload.data)
        if found:
            return found
        if not (named_in_environment() or _servers()):
            raise NoManifestError(local.missing(name), path=name, hint=HINT)
    elif is_single(word):
        return local.load(writing.fitting(word, partial(fit, payload.data)))
    return _choose(open_sources([word] if word else []), payload, name)


def _choose(sources: Sources, payload: files.File, name: str) -> Found:
    """The manifest with the payload's build-id; if there are several, the one that belongs to it."""
    with about(name):
        view = elf.parse(payload.data)
        build_id = Payload(view).build_id
    several = list(sources.with_build_id(build_id.hex())) if build_id else []
    digest = sha256(embed.without(view).data)
    for found in several:
        if digest in (found.manifest.output.sha256, found.manifest.input.sha256):
            return found
    for found in several:
        if belongs(payload.data, found.manifest):
            return found
    if not several:
        raise NoManifestError(
            f"no manifest with its build-id ({build_id and build_id.hex()}) was found", path=name, hint=HINT
        )
    return several[0]


def is_single(word: str) -> bool:
    """Whether a source is one payload or one manifest."""
    return os.path.isfile(word) and not is_catalog(word)


def is_url(word: str) -> bool:
    """Whether a word means a debuginfod server rather than a path."""
    return _URL.match(word) is not None


def is_catalog(path: str) -> bool:
    """Whether a file is a catalog, or at least an SQLite file."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            return file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC
    except OSError:
        return False  # the reader will say what is wrong with it
