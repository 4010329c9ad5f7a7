"""Adds manifests to a catalog and removes them: everything that belongs together, or nothing."""

import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import chain
from typing import NamedTuple, TypeVar

from lpmangle.errors import LpmangleError, ManifestError
from lpmangle.store.catalog import NAMED, Catalog, Entry, are_several
from lpmangle.store.catalog_file import CatalogFile
from lpmangle.store.catalog_names import Keys, forget, insert, keys_of
from lpmangle.store.source import Found
from lpmangle.system import files, writing

T = TypeVar("T")

# The most manifests, and names, that are added in one transaction: others get their turn in between.
BATCH = 1000
BATCH_NAMES = 50_000


class _Prepared(NamedTuple):
    """What a catalog stores of a manifest: its row, and its keys."""

    row: tuple[str, str, str | None, str, str, int, bytes]
    keys: Keys


def add(path: str, several: Iterable[Found]) -> Iterator[bool]:
    """Add manifests to the catalog at `path`, as they were written; for each, whether it was new.

    A new catalog is created, and appears when all of them are in it. New manifests are on disk at the latest when the
    iterator ends; a manifest is added completely or not at all. Raises ManifestError for a file that is not a manifest,
    CatalogError for one that is not a catalog, FileError for one that cannot be read or written.
    """
    batches = _batches(several)
    first = next(batches, [])
    if not first:
        return
    batches = chain([first], batches)
    if not os.path.exists(path):
        with _made(path, batches) as bring:
            yield from bring()
        return
    file = CatalogFile(path, empty_ok=True)
    for batch in batches:
        with file.transaction():
            added = _insert(file, batch)
        yield from added


def merge(path: str, others: Sequence[Catalog]) -> list[bool]:
    """Add all manifests of other catalogs to the one at `path`, in their order, all or none.

    Returns for each whether it was new. Other writers wait meanwhile. A new catalog is created. Raises as `add` does.
    """
    batches = _batches(chain.from_iterable(other.manifests() for other in others))
    if not os.path.exists(path):
        with _made(path, batches) as bring:
            return bring()
    file = CatalogFile(path, empty_ok=True)
    with file.transaction():
        return _insert_all(file, batches)


@contextmanager
def adding(path: str, found: Found) -> Iterator[Callable[[], None]]:
    """Add a manifest when the function that this yields is called, which must happen before the block ends.

    So it is added together with what belongs to it: an error in the block leaves the catalog unchanged, even after that
    call, and until then no other process writes to it. Raises as `add` does.
    """
    if not os.path.exists(path):
        with _made(path, _batches([found])) as bring:
            is_new = False

            def bring_one() -> None:
                nonlocal is_new
                (is_new,) = bring()

            try:
                yield bring_one
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
            (is_new,) = _insert_all(file, _batches([found]))
        yield commit
    except BaseException:
        file.roll_back()
        if tried and is_new:  # it may be there although the commit failed, if only the lock could not be released
            _forget(file, found)
        raise


def remove(catalog: Catalog, words: Sequence[str], *, every: bool = False) -> dict[str, list[Entry]]:
    """Remove the payloads that `words` mean, each by name or by 7 or more digits of the build-id.

    Returns what each word means. Nothing is removed if one means nothing, or several payloads (`are_several`) without
    `every`.
    """
    with catalog.file.transaction():
        found = catalog.named(words)
        if all(entries and (every or not are_several(entries)) for entries in found.values()):
            _delete(catalog.file, NAMED, words)
    return found


@contextmanager
def _made(path: str, batches: Iterable[list[_Prepared]]) -> Iterator[Callable[[], list[bool]]]:
    """Make a new catalog with them; yields a function that moves it to `path` and says for each whether it was new."""
    place = files.resolve(path)
    temporary = writing.temporary_for(place)

    def bring() -> list[bool]:
        if writing.place_new(temporary, place):
            return added
        is_new = iter(merge(path, [Catalog(temporary)]))  # another process has created one meanwhile
        return [one and next(is_new) for one in added]

    try:
        file = CatalogFile(path, empty_ok=True, made_at=temporary)
        with closing(file.db), file.transaction():
            added = _insert_all(file, batches)
        yield bring
    finally:
        with suppress(OSError):
            os.unlink(temporary)


def _batches(several: Iterable[Found]) -> Iterator[list[_Prepared]]:
    return _in_batches(map(_prepared, several), lambda one: one.keys)


def _in_batches(several: Iterable[T], keys_in: Callable[[T], Keys]) -> Iterator[list[T]]:
    """As many at a time as fit into memory, whatever their number."""
    batch: list[T] = []
    names = 0
    for one in several:
        batch.append(one)
        names += len(keys_in(one).names)
        if len(batch) >= BATCH or names >= BATCH_NAMES:
            yield batch
            batch, names = [], 0
    if batch:
        yield batch


def _prepared(found: Found) -> _Prepared:
    manifest = found.manifest
    row = (
        files.sha256(found.text), manifest.payload, manifest.build_id, manifest.options.template, manifest.suffix,
        len(manifest.symbols), zlib.compress(found.text),
    )  # fmt: skip
    return _Prepared(row, keys_of(manifest))


def _insert_all(file: CatalogFile, batches: Iterable[list[_Prepared]]) -> list[bool]:
    return [is_new for batch in batches for is_new in _insert(file, batch)]


def _insert(file: CatalogFile, batch: list[_Prepared]) -> list[bool]:
    """In a transaction; for each, whether it was new."""
    if file.make_tables():
        _index_all(file)
    added = []
    new = []
    for row, keys in batch:
        number = file.db.execute(
            "INSERT INTO manifest (digest, payload, build_id, template, suffix, symbols, text) "
            "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (digest) DO NOTHING RETURNING id",
            row,
        ).fetchone()
        added.append(number is not None)
        if number:
            new.append((number[0], keys))
    insert(file, new)
    return added


def _index_all(file: CatalogFile) -> None:
    """Index the manifests of a catalog that was of version 1."""
    for batch in _in_batches(_all_keys(file), lambda one: one[1]):
        insert(file, batch)


def _all_keys(file: CatalogFile) -> Iterator[tuple[int, Keys]]:
    rows = file.select((int, str, bytes), "SELECT id, payload, text FROM manifest ORDER BY id", {})
    for number, payload, text in rows:
        try:
            yield number, keys_of(file.found(payload, text).manifest)
        except ManifestError as error:
            error.hint = f"that is the one of {payload}: lpmangle catalog remove"
            raise


def _forget(file: CatalogFile, found: Found) -> None:
    """What was added a moment ago, as far as it can be done."""
    with suppress(LpmangleError), file.transaction():
        _delete(file, "digest = :word", [files.sha256(found.text)])


def _delete(file: CatalogFile, where: str, words: Iterable[str]) -> None:
    with file.limited():
        for word in words:
            file.db.execute(f"DELETE FROM manifest WHERE {where}", {"word": word})
        if file.make_tables():
            _index_all(file)
        else:
            forget(file)
