"""The manifests of all shipped payloads in one file, found by SQL. (`catalog_writing` adds and removes them.)"""

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from lpmangle.errors import CatalogError, FileError
from lpmangle.manifest.read import Head, head_in
from lpmangle.manifest.search import matcher, wanted
from lpmangle.store.catalog_file import CatalogFile
from lpmangle.store.catalog_names import manifests_with
from lpmangle.store.source import Found, Shape

# The condition for a name, or 7 or more digits of a build-id.
NAMED = "payload = :word OR (length(:word) >= 7 AND substr(build_id, 1, length(:word)) = :word)"
# The head of a manifest is in this many compressed bytes, if lpmangle wrote it and there are few payloads below.
_START = 2048


class Entry(NamedTuple):
    """One manifest in the catalog; `id` grows in the order of adding."""

    id: int
    payload: str
    build_id: str | None
    suffix: str
    symbols: int


class Match(NamedTuple):
    """A symbol that a payload introduced."""

    original: str
    name: str
    payload: str
    build_id: str | None


class Catalog:
    """One open catalog, a source of manifests."""

    def __init__(self, path: str) -> None:
        """Raises CatalogError for a file that is not a catalog, FileError for one that cannot be read."""
        self.path = path
        try:
            os.stat(path)
        except FileNotFoundError:
            raise CatalogError("does not exist", path=path, hint="lpmangle catalog add creates it") from None
        except OSError as error:
            raise FileError(f"cannot read: {error.strerror}", path=path) from None
        self.file = CatalogFile(path)

    def entries(self, where: str = "1", **values: str) -> list[Entry]:
        """All manifests, or those that fit an SQL condition, in the order in which they were added."""
        with self.file.errors():
            rows = self.file.select(
                (int, str, str | None, str, int),
                f"SELECT id, payload, build_id, suffix, symbols FROM manifest WHERE {where} ORDER BY id",
                values,
            )
            return [Entry(*row) for row in self._each_once(rows)]

    def named(self, words: Sequence[str]) -> dict[str, list[Entry]]:
        """The payloads that each word means, by name or by 7 or more digits of the build-id."""
        return {word: self.entries(NAMED, word=word) for word in words}

    def found(self, entry: Entry) -> Found:
        """The manifest of an entry, as it was written."""
        return self.file.found(entry.payload, self._text(entry, "text"))

    def head(self, entry: Entry) -> Head:
        """The head of that manifest; only the start is unpacked."""
        start = zlib.decompressobj()
        with suppress(zlib.error):
            if head := head_in(start.decompress(self._text(entry, f"substr(text, 1, {_START})"), 2 * _START)):
                return head
        return self.found(entry).head

    def manifests(self) -> Iterator[Found]:
        """All manifests, in the order of adding, one at a time; the file is open until the last."""
        with self.file.errors():
            rows = self.file.select((int, str, bytes), "SELECT id, payload, text FROM manifest ORDER BY id", {})
            for _, payload, text in self._each_once(rows):
                yield self.file.found(payload, text)

    def __len__(self) -> int:
        with self.file.errors():
            ((count,),) = self.file.select((int,), "SELECT count(*) FROM manifest", {})
            return int(count)

    def find(self, pattern: str) -> Iterator[Match]:
        """The symbols that match `pattern`, and the payloads that introduced them, oldest first."""
        fits = matcher(pattern)
        for found in self.candidates(pattern):
            names = found.names
            for original, name in sorted({(one.original, one.name) for one in names.symbols if fits(one)}):
                yield Match(original, name, names.payload, names.build_id)

    def shapes(self) -> list[Shape]:
        queries = [
            "SELECT template, suffix FROM manifest "
            "GROUP BY template, CASE WHEN suffix IS build_id AND length(suffix) = 40 THEN '' ELSE suffix END"
        ]
        with self.file.errors():
            if not self.file.is_older():
                queries.append("SELECT DISTINCT template, suffix FROM below")
            return [Shape(*row) for query in queries for row in self.file.select((str, str), query, {})]

    def with_suffix(self, suffix: str) -> list[Found]:
        with self.file.errors():
            below = "" if self.file.is_older() else " OR id IN (SELECT manifest FROM below WHERE suffix = :word)"
        return self._found(f"suffix = :word{below}", {"word": suffix})

    def with_build_id(self, build_id: str) -> list[Found]:
        return self._found("build_id = :word", {"word": build_id})

    def candidates(self, pattern: str) -> Iterator[Found]:
        """One at a time. An older catalog has no index for this, so all its manifests may fit."""
        with self.file.errors():
            if self.file.is_older():
                numbers = [entry.id for entry in self.entries()]
            else:
                numbers = manifests_with(self.file, wanted(pattern).pattern)
        for number in numbers:
            yield from self._found("id = :number", {"number": number})

    def debug_files(self, build_id: str) -> list[str]:
        return []

    def _found(self, where: str, values: Mapping[str, str | int]) -> list[Found]:
        """Only the manifests that fit are unpacked."""
        with self.file.errors():
            query = f"SELECT payload, text FROM manifest WHERE {where} ORDER BY id"
            return [self.file.found(*row) for row in self.file.select((str, bytes), query, values)]

    def _text(self, entry: Entry, what: str) -> bytes:
        with self.file.errors():
            for (text,) in self.file.select((bytes,), f"SELECT {what} FROM manifest WHERE id = :id", {"id": entry.id}):
                return bytes(text)
        hint = "run the command again"
        raise CatalogError(f"another process has removed {entry.payload} meanwhile", path=self.path, hint=hint)

    def _each_once(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """Check that the numbers in the first column grow: in a hostile file, a few pages can give many rows."""
        last = None
        for row in rows:
            if last is not None and row[0] <= last:
                raise CatalogError("is damaged: its manifests are not in order", path=self.path)
            last = row[0]
            yield row


def are_several(entries: Sequence[Entry]) -> bool:
    """Whether these belong to more than one payload, or may: without a build-id it is not known."""
    return len(entries) > 1 and (len({entry.build_id for entry in entries}) > 1 or entries[0].build_id is None)
