"""What a source of manifests can do: give them as they were written, found by suffix, build-id or symbol.

There is one module for each kind of source: `local` (files and folders), `catalog`, `debuginfod`. `open` decides which
one a word on the command line means.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol, TypeVar

from lpmangle.errors import LpmangleError, about
from lpmangle.manifest.read import Head, Manifest, Names, decode, decode_head, decode_names
from lpmangle.xen.abi import MAX_NAME

T = TypeVar("T")

SQLITE_MAGIC = b"SQLite format 3\0"  # the first bytes of a catalog


class Found:
    """One manifest: its text, and where it was found. It is decoded when it is needed, and then kept."""

    def __init__(self, where: str, text: bytes) -> None:
        self.where = where
        self.text = text

    @cached_property
    def manifest(self) -> Manifest:
        with about(self.where):
            return decode(self.text)

    @cached_property
    def names(self) -> Names:
        with about(self.where):
            return decode_names(self.text)

    @cached_property
    def head(self) -> Head:
        with about(self.where):
            return decode_head(self.text)


class Shape(NamedTuple):
    """How the new names of a manifest are recognised: its template and its suffix."""

    template: str
    suffix: str


class Source(Protocol):
    """Look-ups may return manifests that turn out not to fit (`candidates`), but never omit one that does."""

    def shapes(self) -> Iterable[Shape]:
        """The shapes of all manifests; for full build-ids as suffix, one for each template is enough.

        Empty for a source that cannot be listed.
        """

    def with_suffix(self, suffix: str) -> Iterable[Found]:
        """The manifests with exactly this suffix."""

    def with_build_id(self, build_id: str) -> Iterable[Found]:
        """The manifests of the payload with this build-id."""

    def candidates(self, pattern: str) -> Iterable[Found]:
        """The manifests that may have a symbol that matches `pattern` (`manifest.search.find`)."""

    def debug_files(self, build_id: str) -> Iterable[str]:
        """Paths of files that may be the payload with this build-id and have its debug information."""


class Sources:
    """Several sources as one; a manifest that more than one of them has is given once.

    If one of them fails, the error goes to `trouble` and the others are still used; if `trouble` is None it is raised.
    """

    def __init__(self, sources: Sequence[Source], trouble: list[LpmangleError] | None = None) -> None:
        self.sources = sources
        self.trouble = trouble

    def shapes(self) -> Iterable[Shape]:
        # A suffix that no symbol can have does not count: a hostile manifest must not start a search for it.
        return {shape for shape in self._all(lambda source: source.shapes()) if 0 < len(shape.suffix) <= MAX_NAME}

    def with_suffix(self, suffix: str) -> Iterable[Found]:
        return unrepeated(self._all(lambda source: source.with_suffix(suffix)))

    def with_build_id(self, build_id: str) -> Iterable[Found]:
        return unrepeated(self._all(lambda source: source.with_build_id(build_id)))

    def candidates(self, pattern: str) -> Iterable[Found]:
        return unrepeated(self._all(lambda source: source.candidates(pattern)))

    def debug_files(self, build_id: str) -> Iterable[str]:
        return self._all(lambda source: source.debug_files(build_id))

    def _all(self, ask: Callable[[Source], Iterable[T]]) -> Iterator[T]:
        for source in self.sources:
            try:
                yield from ask(source)
            except LpmangleError as error:
                if self.trouble is None:
                    raise
                self.trouble.append(error)


def unrepeated(several: Iterable[Found]) -> Iterator[Found]:
    """Each manifest once: payloads with a manifest inside often have the same one beside them."""
    first = None
    seen = set()
    for found in several:
        if first is None:  # nearly always there is only one
            first = found
            yield found
            continue
        seen.add(hash(first.text))
        if (key := hash(found.text)) not in seen:
            seen.add(key)
            yield found


def warn(where: str, message: str) -> None:
    """`lpmangle: WHERE: warning: message` on stderr: something that is left out, and no reason to end."""
    printable = "".join(c if c.isprintable() else "?" for c in f"{where}: warning: {message}")
    sys.stderr.write(f"lpmangle: {printable}\n")  # at once: several processes may warn
