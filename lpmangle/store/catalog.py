"""The manifests of all shipped payloads in one SQLite file.

It has a rollback journal, not a write-ahead log: the catalog stays one file that can be copied, mounted read-only
and, unlike WAL, be shared over a network file system; writers are few and short, and wait for each other. A transaction
is on disk when it is done (`synchronous` FULL), and undone by whoever opens the catalog next if its writer died.
"""

import os
import re
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from lpmangle.errors import CatalogError, FileError, LpmangleError, about
from lpmangle.manifest.embed import decompress
from lpmangle.manifest.read import Manifest, decode
from lpmangle.manifest.search import wanted
from lpmangle.store.source import SQLITE_MAGIC, Found, Shape
from lpmangle.system import files
from lpmangle.system.files import sha256
from lpmangle.xen.abi import MAX_NAME

APPLICATION_ID = 0x6C706D67  # "lpmg", in the header of the file
SCHEMA_VERSION = 1
# How long a writer waits for the others.
PATIENCE = 120.0  # seconds
# So many manifests are added in one transaction: others get their turn in between.
BATCH = 200
# A query is stopped after so many steps of SQLite's machine, and so many for each byte of the file: in a hostile file a
# tree of a few pages can have more rows than anybody can read.
MIN_STEPS = 500_000
STEPS_PER_BYTE = 20
_STEPS_AT_ONCE = 100_000
# In the file's header (https://www.sqlite.org/fileformat.html, 1.3): whether there is a write-ahead log; the
# application ID; on the first page, behind it, that it is a leaf of the schema's tree and has no entries.
_VERSIONS_AT, _ID_AT, _PAGE_AT = 18, 68, 100
_EMPTY_PAGE = b"\x0d\0\0\0\0"

# What is no fault of the file's content.
_FILE_SYSTEM = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}

_GLOB = re.compile(r"[*?\[]")
_GLOB_NEGATION = re.compile(r"\[!")  # fnmatch's; SQLite has [^

_SCHEMA = f"""
CREATE TABLE manifest (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,            -- SHA-256 of the manifest's text
    payload TEXT NOT NULL,
    build_id TEXT,
    template TEXT NOT NULL,
    suffix TEXT NOT NULL,
    symbols INTEGER NOT NULL,
    text BLOB NOT NULL                      -- zlib
);
CREATE INDEX manifest_build_id ON manifest (build_id);
CREATE INDEX manifest_suffix ON manifest (suffix);
CREATE TABLE original (                     -- each once: payloads share most of theirs
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    part TEXT NOT NULL                      -- behind the last '#'
);
CREATE INDEX original_part ON original (part);
CREATE TABLE symbol (
    manifest INTEGER NOT NULL REFERENCES manifest ON DELETE CASCADE,
    original INTEGER NOT NULL REFERENCES original,
    name TEXT NOT NULL,                     -- the new one; found by the suffix that it holds, so without an index
    PRIMARY KEY (manifest, original, name)
) WITHOUT ROWID;
CREATE INDEX symbol_original ON symbol (original);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""


class Entry(NamedTuple):
    """One manifest in the catalog."""

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
    """One open catalog, a source of manifests. With `write` it is made if it does not exist and `make` is set."""

    def __init__(self, path: str, *, write: bool = False, make: bool = True) -> None:
        """Raises CatalogError for a file that is no catalog, FileError if the file system says no."""
        self.path = path
        if not (write and make):
            try:
                os.stat(path)
            except FileNotFoundError:
                raise CatalogError("does not exist", path=path, hint="lpmangle catalog add makes it") from None
            except OSError as error:
                raise FileError(f"cannot read: {error.strerror}", path=path) from None
        _refuse_foreign(path)
        # Read-only (ro) nobody could read it after a writer died: what that one began has to be undone first. Where we
        # may not write, rw is ro.
        uri = "file:" + _quoted(os.path.abspath(path)) + ("?mode=rwc" if write and make else "?mode=rw")
        with self._errors():
            self._db = sqlite3.connect(uri, uri=True, timeout=PATIENCE, isolation_level=None)
            try:
                self._db.execute("PRAGMA foreign_keys = ON")
                self._db.execute("PRAGMA trusted_schema = OFF")
                self._db.execute("PRAGMA synchronous = FULL")
                self._check(write)
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        self._db.close()

    def add(self, texts: Iterable[bytes]) -> Iterator[bool]:
        """Add manifests, as they were written; for each, whether it was new. Raises ManifestError.

        What was said True to is on disk at the latest when the iterator ends; a manifest is added whole or not at all.
        """
        batch: list[bytes] = []
        for text in texts:
            batch.append(text)
            if len(batch) == BATCH:
                yield from self._add_batch(batch)
                batch = []
        yield from self._add_batch(batch)

    @contextmanager
    def adding(self, text: bytes) -> Iterator[Callable[[], None]]:
        """Add a manifest when the function that this gives is called, which must be done before the block ends.

        So that it comes together with what belongs to it: until then no other process writes to the catalog, and an
        error in the block leaves the catalog as it was, even behind that call. Raises ManifestError, CatalogError,
        FileError.
        """
        is_new = tried = False

        def commit() -> None:
            nonlocal tried
            tried = True
            with self._errors():
                self._db.execute("COMMIT")

        manifest = decode(text)
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
        try:
            with self._errors():
                is_new = self._insert(text, manifest)
            yield commit
        except BaseException:
            with suppress(LpmangleError, sqlite3.Error):
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if tried and is_new:  # it may be there although COMMIT failed: when only the lock could not be let go
                    self._forget("digest = ?1", sha256(text))
            raise

    def remove(self, word: str) -> list[Entry]:
        """Remove the manifests of the payload with that name, or whose build-id begins with it (7 digits or more)."""
        return self._forget("payload = ?1 OR (length(?1) >= 7 AND substr(build_id, 1, length(?1)) = ?1)", word)

    def entries(self, where: str = "1", *values: str) -> list[Entry]:
        """All manifests, in the order in which they were added."""
        with self._errors():
            rows = self._select(
                (str, str | None, str, int),
                f"SELECT payload, build_id, suffix, symbols FROM manifest WHERE {where} ORDER BY id",
                values,
            )
            return [Entry(*row) for row in rows]

    def find(self, pattern: str) -> Iterator[Match]:
        """The symbols that `pattern` names, and the payloads that introduced them, oldest first."""
        with self._errors():
            hits, values = _hits(pattern)
            rows = self._select(
                (str, str, str, str | None),
                f"SELECT original.name, hit.name, payload, build_id FROM ({hits}) AS hit "
                "JOIN original ON original.id = hit.original JOIN manifest ON manifest.id = hit.manifest "
                "ORDER BY manifest.id, original.name, hit.name",
                values,
            )
            yield from map(Match._make, rows)

    def shapes(self) -> list[Shape]:
        with self._errors():
            query = (
                "SELECT template, suffix FROM manifest "
                "GROUP BY template, CASE WHEN suffix IS build_id AND length(suffix) = 40 THEN '' ELSE suffix END"
            )
            return [Shape(*row) for row in self._select((str, str), query, ())]

    def with_suffix(self, suffix: str) -> list[Found]:
        return self._found("manifest.suffix = ?", (suffix,))

    def with_build_id(self, build_id: str) -> list[Found]:
        return self._found("manifest.build_id = ?", (build_id,))

    def candidates(self, pattern: str) -> list[Found]:
        hits, values = _hits(pattern)
        return self._found(f"id IN (SELECT manifest FROM ({hits}))", values)

    def debug_files(self, build_id: str) -> list[str]:
        return []

    def _found(self, where: str, values: Iterable[str]) -> list[Found]:
        """Only the manifests that fit are unpacked."""
        with self._errors():
            query = f"SELECT payload, text FROM manifest WHERE {where} ORDER BY id"
            rows = self._select((str, bytes), query, tuple(values))
            with about(self.path):
                return [Found(f"{self.path}: {name}", decompress(text, "the catalog")) for name, text in rows]

    def _select(self, types: tuple[Any, ...], query: str, values: Iterable[str]) -> Iterator[tuple[Any, ...]]:
        """The rows of a query; SQLite itself lets any column hold any type."""
        with self._limited():
            for row in self._db.execute(query, tuple(values)):
                if not all(map(isinstance, row, types)):
                    raise CatalogError("is damaged: a value is of the wrong type", path=self.path)
                yield row

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Stop what takes more steps than a sound file of this size can need."""
        steps = MIN_STEPS + STEPS_PER_BYTE * os.path.getsize(self.path)
        patience = iter(range(steps // _STEPS_AT_ONCE))
        self._db.set_progress_handler(lambda: next(patience, -1) < 0, _STEPS_AT_ONCE)
        try:
            yield
        finally:
            self._db.set_progress_handler(None, 0)

    def _forget(self, where: str, value: str) -> list[Entry]:
        with self._transaction():
            entries = self.entries(where, value)
            with self._limited():
                self._db.execute(f"DELETE FROM manifest WHERE {where}", (value,))
                self._db.execute("DELETE FROM original WHERE id NOT IN (SELECT original FROM symbol)")
        return entries

    def _add_batch(self, texts: list[bytes]) -> list[bool]:
        decoded = [decode(text) for text in texts]
        with self._transaction():
            return [self._insert(*one) for one in zip(texts, decoded, strict=True)]

    def _insert(self, text: bytes, manifest: Manifest) -> bool:
        """Whether it is new."""
        row = self._db.execute(
            "INSERT INTO manifest (digest, payload, build_id, template, suffix, symbols, text) "
            "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (digest) DO NOTHING RETURNING id",
            (
                sha256(text), manifest.payload, manifest.build_id, manifest.options.template, manifest.suffix,
                len(manifest.symbols), zlib.compress(text),
            ),
        ).fetchone()  # fmt: skip
        if row is None:
            return False
        self._db.executemany(
            "INSERT OR IGNORE INTO original (name, part) VALUES (?, ?)",
            [(symbol.original, _part(symbol.original)) for symbol in manifest.symbols],
        )
        self._db.executemany(
            "INSERT OR IGNORE INTO symbol (manifest, original, name) SELECT ?, id, ? FROM original WHERE name = ?",
            [(row[0], symbol.name, symbol.original) for symbol in manifest.symbols],
        )
        return True

    def _check(self, write: bool) -> None:
        """Refuse what is not ours; make an empty file a catalog."""
        application_id, version = self._header()
        if write and (application_id, version) == (0, 0):
            with self._transaction():
                application_id, version = self._header()  # another process may have been first
                tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                if (application_id, version, tables) == (0, 0, 0):
                    for statement in _SCHEMA.split(";\n"):
                        self._db.execute(statement)
                    return
        if application_id != APPLICATION_ID:
            raise CatalogError("is an SQLite file, but no catalog of lpmangle", path=self.path)
        if version > SCHEMA_VERSION:
            raise CatalogError(
                f"is a catalog of version {version}; this lpmangle reads version {SCHEMA_VERSION}",
                path=self.path,
                hint="use a newer lpmangle",
            )
        # A view or a trigger of somebody else's would do what it likes.
        found = self._db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT GLOB 'sqlite_*'")
        if {_bare(sql) for (sql,) in found} != {_bare(sql) for sql in _SCHEMA.split(";\n") if "CREATE" in sql}:
            raise CatalogError("is damaged: its tables are not those of a catalog", path=self.path)

    def _header(self) -> tuple[int, int]:
        (application_id,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        return application_id, version

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # after most errors of a disk SQLite has done so already
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        # UnicodeDecodeError: of a message that names a table. MemoryError: what SQLite says of some damaged schemas.
        except (sqlite3.Error, UnicodeDecodeError, MemoryError) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without what SQLite calls its extension
            hint = "another process is writing to it; try again" if code == sqlite3.SQLITE_BUSY else ""
            kind = FileError if code in _FILE_SYSTEM else CatalogError
            reason = str(error) or "it takes more memory than there is"
            raise kind(f"cannot be used as a catalog: {reason}", path=self.path, hint=hint) from None


def _hits(pattern: str) -> tuple[str, tuple[str, ...]]:
    """A SELECT of the symbols that `manifest.search.find` finds, and the values for it."""
    pattern = wanted(pattern).pattern
    values = [pattern]
    originals = ["name = ?1", "part = ?1"]
    hits = [
        "SELECT * FROM symbol WHERE manifest IN (SELECT id FROM manifest WHERE instr(?1, suffix) > 0) "
        "AND (name = ?1 OR substr(name, -length(?1) - 1) = '#' || ?1)"
    ]
    if _GLOB.search(pattern):
        values.append(_GLOB_NEGATION.sub(r"[^", pattern))
        originals += ["name GLOB ?2", "part GLOB ?2"]
        hits.append("SELECT * FROM symbol WHERE name GLOB ?2 OR name GLOB '*#' || ?2")
    if len(pattern.encode()) >= MAX_NAME - 3:  # an original that Xen has cut; 3: inside a UTF-8 character
        originals += [f"{column} >= ?1 AND original.{column} < ?1 || char(1114111)" for column in ("name", "part")]
    hits += [
        f"SELECT symbol.* FROM symbol JOIN original ON original.id = symbol.original WHERE original.{test}"
        for test in originals
    ]
    return " UNION ".join(hits), tuple(values)


def _refuse_foreign(path: str) -> None:
    """Refuse what is no catalog before SQLite opens it, which would end another program's unfinished transaction."""
    start = files.start_of(path)
    if not start:
        return
    if not start.startswith(SQLITE_MAGIC):
        raise CatalogError("is no catalog of lpmangle, nor an SQLite file", path=path)
    application_id = int.from_bytes(start[_ID_AT : _ID_AT + 4])
    if application_id != APPLICATION_ID and (application_id or start[_PAGE_AT : _PAGE_AT + 5] != _EMPTY_PAGE):
        raise CatalogError("is an SQLite file, but no catalog of lpmangle", path=path)
    if start[_VERSIONS_AT : _VERSIONS_AT + 2] != b"\1\1":
        raise CatalogError(
            "has a write-ahead log, which a catalog has not",
            path=path,
            hint=f"sqlite3 {path} 'PRAGMA journal_mode = delete'",
        )


def _bare(sql: str) -> str:
    """A statement without comments and blanks, as which versions may differ."""
    return re.sub(r"--.*|\s+", "", str(sql))


def _part(name: str) -> str:
    return name.rpartition("#")[2]


def _quoted(path: str) -> str:
    """For an SQLite URI."""
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
