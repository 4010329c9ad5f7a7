"""Where manifests come from: files, payloads, folders, catalogs, debuginfod servers.

A source hands out manifests as they were written, found by suffix, by build-id or by a symbol. One module per kind;
which one a word on the command line means is decided here, and a kind is loaded when it is first used.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from lpmangle.errors import FileError, NoSourceError, about
from lpmangle.manifest.read import Head, Manifest, Names, decode, decode_head, decode_names
from lpmangle.system import files
from lpmangle.xen.payload import MAX_NAME

SQLITE_MAGIC = b"SQLite format 3\0"
# An entry of LPMANGLE_MANIFESTS: a URL with its port, if it has one, or a path.
_ENTRY = re.compile(r"https?://(?:\[[^]]*\]|[^:/]*)(?::[0-9]+)?[^:]*|[^:]+")
HINT = "say where it is with -m, or in LPMANGLE_MANIFESTS"


class Found(NamedTuple):
    """One manifest: its text, and where it was found."""

    where: str
    text: bytes

    @property
    def manifest(self) -> Manifest:
        with about(self.where):
            return decode(self.text)

    @property
    def names(self) -> Names:
        with about(self.where):
            return decode_names(self.text)

    @property
    def head(self) -> Head:
        with about(self.where):
            return decode_head(self.text)


class Shape(NamedTuple):
    """How the new names of a manifest can be told: its template and its suffix."""

    template: str
    suffix: str


class Source(Protocol):
    """Look-ups may return manifests that do not fit in the end (`candidates`), never leave out one that does."""

    def shapes(self) -> Iterable[Shape]:
        """Those of all manifests, of those with a full build-id as suffix one for each template will do.

        None from a source that cannot be listed.
        """

    def with_suffix(self, suffix: str) -> Iterable[Found]:
        """The manifests with exactly this suffix."""

    def with_build_id(self, build_id: str) -> Iterable[Found]:
        """The manifests of the payload with this build-id."""

    def candidates(self, pattern: str) -> Iterable[Found]:
        """The manifests that may have a symbol which `pattern` names (query.find)."""

    def debug_files(self, build_id: str) -> Iterable[str]:
        """Paths of files that may be the payload with this build-id and have its debug information."""


class Sources:
    """Several sources as one; a manifest that more than one of them has is handed out once."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources

    def shapes(self) -> Iterable[Shape]:
        # A suffix that no symbol can have is none: a hostile manifest must not make a search of it.
        shapes = {shape for source in self.sources for shape in source.shapes()}
        return {shape for shape in shapes if 0 < len(shape.suffix) <= MAX_NAME}

    def with_suffix(self, suffix: str) -> Iterable[Found]:
        return _unrepeated(found for source in self.sources for found in source.with_suffix(suffix))

    def with_build_id(self, build_id: str) -> Iterable[Found]:
        return _unrepeated(found for source in self.sources for found in source.with_build_id(build_id))

    def candidates(self, pattern: str) -> Iterable[Found]:
        return _unrepeated(found for source in self.sources for found in source.candidates(pattern))

    def debug_files(self, build_id: str) -> Iterable[str]:
        return (path for source in self.sources for path in source.debug_files(build_id))


def _unrepeated(several: Iterable[Found]) -> Iterator[Found]:
    seen = set()
    for found in several:
        if (key := hash(found.text)) not in seen:
            seen.add(key)
            yield found


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
            from lpmangle.store.catalog_source import CatalogSource

            others.append(CatalogSource(word))
        else:
            paths.append(word)
    if urls:
        from lpmangle.store.debuginfod import DebuginfodSource

        others.append(DebuginfodSource(urls))
    if paths:
        from lpmangle.store.local import LocalSource

        others.insert(0, LocalSource(paths))
    return Sources(others)


def with_servers(sources: Sources) -> Sources:
    """The same, and the servers of DEBUGINFOD_URLS: debug information is not always where the manifests are."""
    urls = os.environ.get("DEBUGINFOD_URLS", "").split()
    if not urls:
        return sources
    from lpmangle.store.debuginfod import DebuginfodSource

    return Sources([*sources.sources, DebuginfodSource(urls)])


def from_environment() -> list[str]:
    """LPMANGLE_MANIFESTS (separated by colons, those in URLs aside) and DEBUGINFOD_URLS (by blanks)."""
    return _ENTRY.findall(os.environ.get("LPMANGLE_MANIFESTS", "")) + os.environ.get("DEBUGINFOD_URLS", "").split()


def of_payload(payload: files.File, name: str, word: str | None = None) -> Found:
    """The manifest of one payload: from the source `word`; else from inside it, beside it, or from the environment.

    `name` is the payload as the user calls it. Raises FileError if there is none.
    """
    from lpmangle.store import local

    if word is None:
        found = local.inside(payload.data, name) or local.beside(name, payload.data)
        if found:
            return found
        if not from_environment():
            missing = local.missing(name)
            raise FileError(missing, path=name, hint=HINT)
    elif is_single(word):
        return local.load(files.fitting(word, payload.data))
    return _choose(open_sources([word] if word else []), payload, name)


def _choose(sources: Sources, payload: files.File, name: str) -> Found:
    """The manifest with the payload's build-id; where there are several, the one with its digest."""
    from lpmangle import elf
    from lpmangle.manifest import embed
    from lpmangle.manifest.write import sha256
    from lpmangle.xen.payload import Payload

    with about(name):
        view = elf.parse(payload.data)
        build_id = Payload(view).build_id
    several = list(sources.with_build_id(build_id.hex())) if build_id else []
    digest = sha256(embed.without(view).data)
    for found in several:
        if digest in (found.manifest.output.sha256, found.manifest.input.sha256):
            return found
    if not several:
        raise FileError(
            f"no manifest with its build-id ({build_id and build_id.hex()}) was found", path=name, hint=HINT
        )
    return several[0]


def is_single(word: str) -> bool:
    """Whether a source is one payload or one manifest."""
    return os.path.isfile(word) and not _is_database(word)


def warn(message: str) -> None:
    """Something that is left out, and no reason to end."""
    printable = "".join(c if c.isprintable() else "?" for c in message)
    sys.stderr.write(f"lpmangle: warning: {printable}\n")  # at once: several processes may warn


def _is_database(path: str) -> bool:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            return file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC
    except OSError:
        return False  # what is wrong with it is said by who reads it
