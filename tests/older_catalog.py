"""Catalogs of version 1, as older versions of lpmangle made them: without borrowed names."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterable
from pathlib import Path

_TABLES = """
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
PRAGMA application_id = 0x6C706D67;
PRAGMA user_version = 1;
"""


def write_older(path: Path, texts: Iterable[bytes]) -> None:
    """A catalog of version 1 with these manifests."""
    db = sqlite3.connect(path)
    db.executescript(_TABLES)
    for text in texts:
        one = json.loads(text)
        row = (
            hashlib.sha256(text).hexdigest(), one["payload"], one["build_id"], one["options"]["template"],
            one["suffix"], len(one["symbols"]), zlib.compress(text),
        )  # fmt: skip
        (number,) = db.execute("INSERT INTO manifest VALUES (NULL, ?, ?, ?, ?, ?, ?, ?) RETURNING id", row).fetchone()
        for symbol in one["symbols"]:
            old = symbol["original"]
            db.execute("INSERT OR IGNORE INTO original (name, part) VALUES (?, ?)", (old, old.rpartition("#")[2]))
            db.execute(
                "INSERT OR IGNORE INTO symbol SELECT ?, id, ? FROM original WHERE name = ?",
                (number, symbol["name"], old),
            )
    db.commit()
    db.close()
