"""The manifests of all shipped payloads in one file: adding, removing, merging, and finding them by SQL."""

import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import chain, islice
from typing import Any, NamedTuple

from lpmangle.errors import CatalogError, FileError, LpmangleError, about
from lpmangle.manifest.embed import decompress
from lpmangle.manifest.read import Head, head_in
from lpmangle.manifest.search import wanted
from lpmangle.store.catalog_file import CatalogFile
from lpmangle.store.source import Found, Shape
from lpmangle.system import files, writing
from lpmangle.xen.abi import MAX_NAME

# So many manifests are added in one transaction: others get their turn in between.
BATCH = 200

# One of these has what is found by: a name, or 7 digits or more of a build-id.
_NAMED = "payload = :word OR (length(:word) >= 7 AND substr(build_id, 1, length(:word)) = :word)"
# Bytes of a compressed manifest in which its head is: of one that lpmangle wrote, without many payloads below.
_START = 2048

_GLOB = re.compile(r"[*?\[]")
_GLOB_NEGATION = re.compile(r"\[!")  # fnmatch's; SQLite has [^


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
        """Raises CatalogError for a file that is no catalog, FileError if the file system says no."""
        self.path = path
        try:
            os.stat(path)
        except FileNotFoundError:
            raise CatalogError("does not exist", path=path, hint="lpmangle catalog add makes it") from None
        except OSError as error:
            raise FileError(f"cannot read: {error.strerror}", path=path) from None
        self._file = CatalogFile(path)

    def entries(self) -> list[Entry]:
        """All manifests, in the order in which they were added."""
        with self._file.errors():
            return self._entries("1")

    def remove(self, words: Sequence[str], *, every: bool = False) -> dict[str, list[Entry]]:
        """Remove the payloads that `words` name, each by its name or by 7 digits or more of its build-id.

        Returns what each word names. If one names nothing, or several payloads (`are_several`) and not `every` one of
        them is meant, nothing is removed.
        """
        with self._file.transaction():
            found = {word: self._entries(_NAMED, word=word) for word in words}
            if all(entries and (every or not are_several(entries)) for entries in found.values()):
                _delete(self._file, _NAMED, words)
        return found

    def named(self, words: Sequence[str]) -> dict[str, list[Entry]]:
        """What each word names, as for `remove`."""
        with self._file.errors():
            return {word: self._entries(_NAMED, word=word) for word in words}

    def found(self, entry: Entry) -> Found:
        """The manifest of an entry, as it was written."""
        return self._unpacked(entry.payload, self._text(entry, "text"))

    def head(self, entry: Entry) -> Head:
        """The head of that manifest, for which not all of it is unpacked."""
        start = zlib.decompressobj()
        with suppress(zlib.error):
            if head := head_in(start.decompress(self._text(entry, f"substr(text, 1, {_START})"), 2 * _START)):
                return head
        return self.found(entry).head

    def manifests(self) -> Iterator[Found]:
        """All, in the order of adding, one at a time; the file is being read until the last."""
        with self._file.errors():
            rows = self._file.select((int, str, bytes), "SELECT id, payload, text FROM manifest ORDER BY id", {})
            for _, payload, text in self._each_once(rows):
                yield self._unpacked(payload, text)

    def __len__(self) -> int:
        with self._file.errors():
            ((count,),) = self._file.select((int,), "SELECT count(*) FROM manifest", {})
            return int(count)

    def find(self, pattern: str) -> Iterator[Match]:
        """The symbols that `pattern` names, and the payloads that introduced them, oldest first."""
        with self._file.errors():
            hits, values = _hits(pattern)
            rows = self._file.select(
                (str, str, str, str | None),
                f"SELECT original.name, hit.name, payload, build_id FROM ({hits}) AS hit "
                "JOIN original ON original.id = hit.original JOIN manifest ON manifest.id = hit.manifest "
                "ORDER BY manifest.id, original.name, hit.name",
                values,
            )
            yield from map(Match._make, rows)

    def shapes(self) -> list[Shape]:
        with self._file.errors():
            query = (
                "SELECT template, suffix FROM manifest "
                "GROUP BY template, CASE WHEN suffix IS build_id AND length(suffix) = 40 THEN '' ELSE suffix END"
            )
            return [Shape(*row) for row in self._file.select((str, str), query, {})]

    def with_suffix(self, suffix: str) -> list[Found]:
        return self._found("manifest.suffix = :word", {"word": suffix})

    def with_build_id(self, build_id: str) -> list[Found]:
        return self._found("manifest.build_id = :word", {"word": build_id})

    def candidates(self, pattern: str) -> list[Found]:
        hits, values = _hits(pattern)
        return self._found(f"id IN (SELECT manifest FROM ({hits}))", values)

    def debug_files(self, build_id: str) -> list[str]:
        return []

    def _found(self, where: str, values: Mapping[str, str]) -> list[Found]:
        """Only the manifests that fit are unpacked."""
        with self._file.errors():
            query = f"SELECT payload, text FROM manifest WHERE {where} ORDER BY id"
            return [self._unpacked(*row) for row in self._file.select((str, bytes), query, values)]

    def _unpacked(self, payload: str, text: bytes) -> Found:
        with about(self.path):
            return Found(f"{self.path}: {payload}", decompress(text, "the catalog"))

    def _text(self, entry: Entry, what: str) -> bytes:
        with self._file.errors():
            for (text,) in self._file.select((bytes,), f"SELECT {what} FROM manifest WHERE id = :id", {"id": entry.id}):
                return bytes(text)
        hint = "run the command again"
        raise CatalogError(f"another process has removed {entry.payload} meanwhile", path=self.path, hint=hint)

    def _entries(self, where: str, **values: str) -> list[Entry]:
        rows = self._file.select(
            (int, str, str | None, str, int),
            f"SELECT id, payload, build_id, suffix, symbols FROM manifest WHERE {where} ORDER BY id",
            values,
        )
        return [Entry(*row) for row in self._each_once(rows)]

    def _each_once(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """Rows in the order of their numbers, which begin them. In a hostile file a few pages can be many rows."""
        last = None
        for row in rows:
            if last is not None and row[0] <= last:
                raise CatalogError("is damaged: its manifests are not in order", path=self.path)
            last = row[0]
            yield row


def are_several(entries: Sequence[Entry]) -> bool:
    """Whether these are of more than one payload, or may be: without a build-id nobody can tell."""
    return len(entries) > 1 and (len({entry.build_id for entry in entries}) > 1 or entries[0].build_id is None)


def add(path: str, several: Iterable[Found]) -> Iterator[bool]:
    """Add manifests to the catalog at `path`, as they were written; for each, whether it was new.

    A catalog that does not exist is made, and is there when the first manifests are in it. What was said True to is on
    disk at the latest when the iterator ends; a manifest is added whole or not at all. Raises ManifestError for what is
    none, CatalogError for a file that is no catalog, FileError if the file system says no.
    """
    remaining = iter(several)
    batches = iter(lambda: list(islice(remaining, BATCH)), [])
    first = next(batches, [])
    if first and not os.path.exists(path):
        with _made(path, first) as (added, place):
            is_made = place()
        if is_made:
            yield from added
            first = next(batches, [])
    if first:
        file = CatalogFile(path, empty_ok=True)
        for batch in chain([first], batches):
            with file.transaction():
                added = _insert(file, batch)
            yield from added


def merge(path: str, others: Sequence[Catalog]) -> list[bool]:
    """Add all manifests of other catalogs to the one at `path`, in their order, all or none.

    For each, whether it was new. Other writers wait until that is done.
    A catalog that does not exist is made. Raises as `add` does.
    """

    def several() -> Iterator[Found]:
        return chain.from_iterable(other.manifests() for other in others)

    if not os.path.exists(path):
        with _made(path, several()) as (added, place):
            if place():
                return added
    file = CatalogFile(path, empty_ok=True)
    with file.transaction():
        return _insert(file, several())


@contextmanager
def adding(path: str, found: Found) -> Iterator[Callable[[], None]]:
    """Add a manifest when the function that this gives is called, which must be done before the block ends.

    So that it comes together with what belongs to it: an error in the block leaves the catalog as it was, even behind
    that call, and until then no other process writes to it. Raises as `add` does.
    """
    if not os.path.exists(path):
        with _made(path, [found]) as (_, place):
            is_new = False

            def bring() -> None:
                nonlocal is_new
                is_new = place() or all(add(path, [found]))  # another process has made one meanwhile

            try:
                yield bring
            except BaseException:
                if is_new:
                    _forget(CatalogFile(path), found)
                raise
        return
    file = CatalogFile(path, empty_ok=True)
    tried = False

    def commit() -> None:
        nonlocal tried
        tried = True
        file.commit()

    file.begin()
    is_new = False
    try:
        with file.errors():
            (is_new,) = _insert(file, [found])
        yield commit
    except BaseException:
        file.roll_back()
        if tried and is_new:  # it may be there although the commit failed: when only the lock could not be let go
            _forget(file, found)
        raise


@contextmanager
def _made(path: str, several: Iterable[Found]) -> Iterator[tuple[list[bool], Callable[[], bool]]]:
    """A new catalog with those in it, as `_insert` says; and what brings it to `path`, False if one is there by now."""
    place = files.resolve(path)
    temporary = writing.temporary_for(place)
    try:
        file = CatalogFile(path, empty_ok=True, made_at=temporary)
        with closing(file.db), file.transaction():
            added = _insert(file, several)
        yield added, lambda: writing.place_new(temporary, place)
    finally:
        with suppress(OSError):
            os.unlink(temporary)


def _insert(file: CatalogFile, several: Iterable[Found]) -> list[bool]:
    """In a transaction; for each, whether it was new."""
    file.make_tables()
    return [_insert_one(file, found) for found in several]


def _insert_one(file: CatalogFile, found: Found) -> bool:
    manifest = found.manifest
    row = file.db.execute(
        "INSERT INTO manifest (digest, payload, build_id, template, suffix, symbols, text) "
        "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (digest) DO NOTHING RETURNING id",
        (
            files.sha256(found.text), manifest.payload, manifest.build_id, manifest.options.template, manifest.suffix,
            len(manifest.symbols), zlib.compress(found.text),
        ),
    ).fetchone()  # fmt: skip
    if row is None:
        return False
    file.db.executemany(
        "INSERT OR IGNORE INTO original (name, part) VALUES (?, ?)",
        [(symbol.original, _part(symbol.original)) for symbol in manifest.symbols],
    )
    file.db.executemany(
        "INSERT OR IGNORE INTO symbol (manifest, original, name) SELECT ?, id, ? FROM original WHERE name = ?",
        [(row[0], symbol.name, symbol.original) for symbol in manifest.symbols],
    )
    return True


def _forget(file: CatalogFile, found: Found) -> None:
    """What was added a moment ago, as far as it can be done."""
    with suppress(LpmangleError), file.transaction():
        _delete(file, "digest = :word", [files.sha256(found.text)])


def _delete(file: CatalogFile, where: str, words: Iterable[str]) -> None:
    with file.limited():
        for word in words:
            file.db.execute(f"DELETE FROM manifest WHERE {where}", {"word": word})
        file.db.execute("DELETE FROM original WHERE id NOT IN (SELECT original FROM symbol)")


def _hits(pattern: str) -> tuple[str, dict[str, str]]:
    """A SELECT of the symbols that `manifest.search.find` finds, and the values for it."""
    pattern = wanted(pattern).pattern
    values = {"word": pattern}
    originals = ["name = :word", "part = :word"]
    hits = [
        "SELECT * FROM symbol WHERE manifest IN (SELECT id FROM manifest WHERE instr(:word, suffix) > 0) "
        "AND (name = :word OR substr(name, -length(:word) - 1) = '#' || :word)"
    ]
    if _GLOB.search(pattern):
        values["glob"] = _GLOB_NEGATION.sub(r"[^", pattern)
        originals += ["name GLOB :glob", "part GLOB :glob"]
        hits.append("SELECT * FROM symbol WHERE name GLOB :glob OR name GLOB '*#' || :glob")
    if len(pattern.encode()) >= MAX_NAME - 3:  # an original that Xen has cut; 3: inside a UTF-8 character
        originals += [
            f"{column} >= :word AND original.{column} < :word || char(1114111)" for column in ("name", "part")
        ]
    hits += [
        f"SELECT symbol.* FROM symbol JOIN original ON original.id = symbol.original WHERE original.{test}"
        for test in originals
    ]
    return " UNION ".join(hits), values


def _part(name: str) -> str:
    return name.rpartition("#")[2]
