"""The file of a catalog: its tables, and how it is opened, so that no file can do harm and no file is harmed.

It uses a rollback journal, not a write-ahead log: the catalog stays one file that can be copied, mounted read-only and,
unlike WAL, shared over a network file system; writers are few and short, and wait for each other. A transaction is on
disk when it is done (`synchronous` FULL); if its writer died, the next process that opens the catalog undoes it.
"""

import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from lpmangle.errors import CatalogError, FileError, about
from lpmangle.manifest.embed import decompress
from lpmangle.store.source import SQLITE_MAGIC, Found
from lpmangle.system import files

APPLICATION_ID = 0x6C706D67  # "lpmg", in the header of the file
SCHEMA_VERSION = 2
# How long a writer waits for the others.
PATIENCE = 120.0  # seconds
# A query is stopped after this many steps of SQLite's machine, plus this many for each byte of the file: in a hostile
# file, a tree of a few pages can have more rows than anybody can read.
MIN_STEPS = 500_000
STEPS_PER_BYTE = 20
_STEPS_AT_ONCE = 100_000
# In the file's header (https://www.sqlite.org/fileformat.html, 1.3): whether there is a write-ahead log; the
# application ID; on the first page, behind it, that it is a leaf of the schema's tree and has no entries.
_VERSIONS_AT, _ID_AT, _PAGE_AT = 18, 68, 100
_EMPTY_PAGE = b"\x0d\0\0\0\0"

# Errors that are not caused by the file's content.
_FILE_SYSTEM = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}

_MANIFESTS = """
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
"""
# The index of manifests. It is made from their text, and can be made again.
_INDEX = """
CREATE TABLE below (                        -- a payload from which the manifest borrows names
    suffix TEXT NOT NULL,
    template TEXT NOT NULL,
    manifest INTEGER NOT NULL,
    PRIMARY KEY (suffix, template, manifest)
) WITHOUT ROWID;
CREATE TABLE name (                         -- see catalog_names
    name TEXT NOT NULL,
    manifest INTEGER NOT NULL,
    PRIMARY KEY (name, manifest)
) WITHOUT ROWID;
CREATE TABLE ending (                       -- each name once, spelt backwards
    name TEXT NOT NULL PRIMARY KEY
) WITHOUT ROWID;
CREATE TABLE file (                         -- the beginning of a name up to its last '#'; may be empty
    prefix TEXT NOT NULL PRIMARY KEY
) WITHOUT ROWID;
"""
# The index of version 1, without borrowed names.
_INDEX_1 = """
CREATE TABLE original (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    part TEXT NOT NULL
);
CREATE INDEX original_part ON original (part);
CREATE TABLE symbol (
    manifest INTEGER NOT NULL REFERENCES manifest ON DELETE CASCADE,
    original INTEGER NOT NULL REFERENCES original,
    name TEXT NOT NULL,
    PRIMARY KEY (manifest, original, name)
) WITHOUT ROWID;
CREATE INDEX symbol_original ON symbol (original);
"""
_TABLES = {1: _MANIFESTS + _INDEX_1, SCHEMA_VERSION: _MANIFESTS + _INDEX}
_DROP_INDEX_1 = "DROP TABLE symbol;\nDROP TABLE original;\n"


class CatalogFile:
    """One open file; `db` is SQLite's connection, closed with it."""

    def __init__(self, path: str, *, empty_ok: bool = False, made_at: str = "") -> None:
        """With `empty_ok`, an empty file counts as one without tables.

        `path` is the name in messages; `made_at` is where a new one is while it is being made. Raises CatalogError for
        a file that is not a catalog, before SQLite may write to it, FileError for one that cannot be read.
        """
        self.path = path
        self._place = made_at or path
        _refuse_foreign(path)
        # Read-only (ro) it could not be read after a writer died: its transaction has to be undone first. If we may not
        # write, rw is ro.
        mode = "rwc" if made_at else "rw"
        with self.errors():
            uri = f"file:{_quoted(os.path.abspath(self._place))}?mode={mode}"
            self.db = sqlite3.connect(uri, uri=True, timeout=PATIENCE, isolation_level=None)
            try:
                self.db.execute("PRAGMA trusted_schema = OFF")
                self.db.execute("PRAGMA synchronous = FULL")
                self.db.create_function("reversed", 1, lambda name: name[::-1], deterministic=True)
                if made_at:  # an unfinished one is thrown away, so nothing needs to be rolled back
                    self.db.execute("PRAGMA journal_mode = OFF")
                if not (empty_ok and self._is_empty()):
                    self._check()
            except BaseException:
                self.db.close()
                raise

    def __del__(self) -> None:
        # Sources live as long as their command, which need not know that this one has to be closed.
        if "db" in vars(self):
            self.db.close()

    def select(self, types: tuple[Any, ...], query: str, values: Mapping[str, str | int]) -> Iterator[tuple[Any, ...]]:
        """The rows of a query; SQLite itself lets any column hold any type."""
        with self.limited():
            for row in self.db.execute(query, values):
                if not all(map(isinstance, row, types)):
                    raise CatalogError("is damaged: a value is of the wrong type", path=self.path)
                yield row

    def make_tables(self) -> bool:
        """In a transaction; another process may have been first.

        True if the existing manifests are not in the index, because it was a catalog of version 1.
        """
        is_empty = self._is_empty()
        if not is_empty:
            self._check()
            if not self.is_older():
                return False
        for statement in _statements((_MANIFESTS if is_empty else _DROP_INDEX_1) + _INDEX):
            self.db.execute(statement)
        self.db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self.db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        return not is_empty

    def is_older(self) -> bool:
        """Whether it is a catalog of version 1 that has not been written since."""
        return self._header() == (APPLICATION_ID, 1)

    def found(self, payload: str, text: bytes) -> Found:
        """The manifest in a row, unpacked. Raises ManifestError."""
        with about(self.path):
            return Found(f"{self.path}: {payload}", decompress(text, "the catalog"))

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Stop a query that takes more steps than a valid file of this size can need."""
        steps = MIN_STEPS + STEPS_PER_BYTE * os.path.getsize(self._place)
        patience = iter(range(steps // _STEPS_AT_ONCE))
        self.db.set_progress_handler(lambda: next(patience, -1) < 0, _STEPS_AT_ONCE)
        try:
            yield
        finally:
            self.db.set_progress_handler(None, 0)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """On disk at its end, or undone if the block raises; other writers wait."""
        self.begin()
        try:
            with self.errors():
                yield
            self.commit()
        except BaseException:
            self.roll_back()
            raise

    def begin(self) -> None:
        with self.errors():
            self.db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        with self.errors():
            self.db.execute("COMMIT")

    def roll_back(self) -> None:
        with suppress(sqlite3.Error):  # after most errors of a disk, SQLite has already done so
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")

    @contextmanager
    def errors(self) -> Iterator[None]:
        """SQLite's errors as ours: FileError for errors of the file system, else CatalogError."""
        try:
            yield
        # UnicodeDecodeError: from a message with a table's name. MemoryError: SQLite raises it for some damaged
        # schemas.
        except (sqlite3.Error, UnicodeDecodeError, MemoryError) as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without SQLite's extended part
            hint = "another process is writing to it; try again" if code == sqlite3.SQLITE_BUSY else ""
            kind = FileError if code in _FILE_SYSTEM else CatalogError
            reason = str(error) or "it takes more memory than there is"
            raise kind(f"cannot be used as a catalog: {reason}", path=self.path, hint=hint) from None

    def _is_empty(self) -> bool:
        return self._header() == (0, 0) and not self.db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()

    def _check(self) -> None:
        """Refuse other files."""
        application_id, version = self._header()
        if application_id != APPLICATION_ID:
            raise CatalogError("is an SQLite file, but not a catalog of lpmangle", path=self.path)
        if version > SCHEMA_VERSION:
            raise CatalogError(
                f"is a catalog of version {version}; this lpmangle reads versions up to {SCHEMA_VERSION}",
                path=self.path,
                hint="use a newer lpmangle",
            )
        # A foreign view or trigger could do anything.
        found = self.db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT GLOB 'sqlite_*'")
        if {_bare(sql) for (sql,) in found} != {_bare(sql) for sql in _statements(_TABLES.get(version, ""))}:
            raise CatalogError("is damaged: its tables are not those of a catalog", path=self.path)

    def _header(self) -> tuple[int, int]:
        (application_id,) = self.db.execute("PRAGMA application_id").fetchone()
        (version,) = self.db.execute("PRAGMA user_version").fetchone()
        return application_id, version


def _refuse_foreign(path: str) -> None:
    """Refuse other files before SQLite opens them, which would undo another program's unfinished transaction."""
    start = files.start_of(path)
    if not start:
        return
    if not start.startswith(SQLITE_MAGIC):
        raise CatalogError("is not a catalog of lpmangle, nor an SQLite file", path=path)
    application_id = int.from_bytes(start[_ID_AT : _ID_AT + 4])
    if application_id != APPLICATION_ID and (application_id or start[_PAGE_AT : _PAGE_AT + 5] != _EMPTY_PAGE):
        raise CatalogError("is an SQLite file, but not a catalog of lpmangle", path=path)
    if start[_VERSIONS_AT : _VERSIONS_AT + 2] != b"\1\1":
        raise CatalogError(
            "uses a write-ahead log; catalogs must not",
            path=path,
            hint=f"sqlite3 {path} 'PRAGMA journal_mode = delete'",
        )


def _statements(script: str) -> list[str]:
    return [statement for statement in script.split(";\n") if statement.strip()]


def _bare(sql: str) -> str:
    """A statement without comments and blanks, in which versions may differ."""
    return re.sub(r"--.*|\s+", "", str(sql))


def _quoted(path: str) -> str:
    """For an SQLite URI."""
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
