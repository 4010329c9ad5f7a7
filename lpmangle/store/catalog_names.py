"""The names by which a catalog finds a manifest: which they are, how they are stored, how they are searched.

The index finds every manifest that a look-up may mean, and sometimes one that it does not mean: the caller reads the
manifest and decides (`manifest.search`). So the meaning of a pattern is defined only there.

A symbol's new name is nearly always its original, `_` and the manifest's suffix. Such a name is not stored, but
searched in these parts.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lpmangle.manifest.read import Manifest
from lpmangle.manifest.search import cut
from lpmangle.store.catalog_file import CatalogFile
from lpmangle.xen.abi import MAX_NAME

_LEAD = "_"
_SPECIAL = re.compile(r"[*?\[]")
# A class of characters as in fnmatch: a bracket that is not closed means itself.
_CLASS = re.compile(r"\[!?+\]?+[^\]]*\]")

_BEHIND = "CAST(x'ff' AS TEXT)"  # a byte that is not in UTF-8, after all others in the order of an index
# A whole name, or its part after the last '#'.
_EXACT = "SELECT name.manifest FROM file CROSS JOIN name ON name.name = file.prefix || :name"
_EXACT_WITH_SUFFIX = (
    "SELECT manifest.id FROM manifest CROSS JOIN file "
    "CROSS JOIN name ON name.name = file.prefix || :name AND name.manifest = manifest.id "
    "WHERE manifest.suffix = :suffix"
)
_BEGINNING = (
    "SELECT DISTINCT name.manifest FROM file CROSS JOIN name "
    f"ON name.name >= file.prefix || :begin AND name.name < file.prefix || :begin || {_BEHIND} "
    "WHERE name.name GLOB '*' || :glob"
)
_ENDING = (
    "SELECT DISTINCT name.manifest FROM ending CROSS JOIN name ON name.name = reversed(ending.name) "
    f"WHERE ending.name >= :end AND ending.name < :end || {_BEHIND} AND ending.name GLOB :glob || '*'"
)
_ANY = "SELECT DISTINCT manifest FROM name WHERE name GLOB '*' || :glob"
_WITH_SUFFIX = f"SELECT id FROM manifest WHERE '{_LEAD}' || suffix GLOB :glob"


class Keys(NamedTuple):
    """The keys of a manifest: templates and suffixes of the payloads below whose names it has; its names."""

    below: list[tuple[str, str]]
    names: set[str]


def keys_of(manifest: Manifest) -> Keys:
    """The names are the original ones, whole and as Xen cuts them, and the new ones that are stored."""
    originals = [one.original for one in manifest.symbols] + [one.original for one in manifest.borrowed]
    names = {one.name for one in manifest.symbols}
    if "#" not in manifest.suffix and manifest.suffix == _key(manifest.suffix):
        tail = _LEAD + manifest.suffix
        names.difference_update([original + tail for original in originals])
    names.update([one.name for one in manifest.borrowed], originals)
    if max(map(len, names), default=0) > MAX_NAME or not "".join(originals).isascii():
        names.update(map(cut, originals))
    if not "".join(names).isprintable():
        names = set(map(_key, names))
    return Keys([(one.template, one.suffix) for one in manifest.against], names)


def insert(file: CatalogFile, several: Sequence[tuple[int, Keys]]) -> None:
    """Add manifests to the index, by number; in the order of the index, so that each page is changed only once."""
    pairs = sorted([(name, number) for number, keys in several for name in keys.names])
    names = {name for name, _ in pairs}
    prefixes = {name[: name.rfind("#") + 1] for name in names}
    below = [(suffix, template, number) for number, keys in several for template, suffix in keys.below]
    file.db.executemany("INSERT OR IGNORE INTO name VALUES (?, ?)", pairs)
    file.db.executemany("INSERT OR IGNORE INTO ending VALUES (?)", zip(sorted([name[::-1] for name in names])))
    file.db.executemany("INSERT OR IGNORE INTO file VALUES (?)", zip(sorted({"", *prefixes})))
    file.db.executemany("INSERT OR IGNORE INTO below VALUES (?, ?, ?)", below)


def forget(file: CatalogFile) -> None:
    """Remove the keys of manifests that are no longer there from the index."""
    file.db.execute("DELETE FROM below WHERE manifest NOT IN (SELECT id FROM manifest)")
    file.db.execute("DELETE FROM name WHERE manifest NOT IN (SELECT id FROM manifest)")
    file.db.execute("DELETE FROM ending WHERE NOT EXISTS (SELECT 1 FROM name WHERE name.name = reversed(ending.name))")
    file.db.execute(
        "DELETE FROM file WHERE NOT EXISTS "
        f"(SELECT 1 FROM name WHERE name.name >= prefix AND name.name < prefix || {_BEHIND})"
    )


def manifests_with(file: CatalogFile, pattern: str) -> list[int]:
    """The numbers of all manifests that may have a name that matches `pattern`, in order."""
    word = _key(pattern)
    found = set(_numbers(file, _EXACT, name=word))
    for at, one in enumerate(word):
        if one == _LEAD:
            found.update(_numbers(file, _EXACT_WITH_SUFFIX, name=word[:at], suffix=word[at + 1 :]))
    if _SPECIAL.search(word):
        found.update(_matching(file, _CLASS.sub("?", word)))
    return sorted(found)


def _matching(file: CatalogFile, pattern: str) -> Iterator[int]:
    """The same for a pattern in which only `*` and `?` are special."""
    yield from _with_kept_name(file, pattern)
    for at, one in enumerate(pattern):
        tail = pattern[at:]
        # If only the last * means the suffix, the part before it matches alone.
        if one not in (_LEAD, "*", "?") or not tail.strip("*"):
            continue
        if fits := set(_numbers(file, _WITH_SUFFIX, glob=_as_sql(tail))):
            yield from fits.intersection(_with_kept_name(file, pattern[: at + (one == "*")]))


def _with_kept_name(file: CatalogFile, pattern: str) -> Iterator[int]:
    if not re.search("[*?]", pattern):
        return _numbers(file, _EXACT, name=pattern)
    if not pattern.strip("*"):
        return _numbers(file, "SELECT id FROM manifest")
    if begin := _literal(pattern):
        return _numbers(file, _BEGINNING, begin=begin, glob=_as_sql(pattern))
    if end := _literal(pattern[::-1]):
        return _numbers(file, _ENDING, end=end, glob=_as_sql(pattern[::-1]))
    return _numbers(file, _ANY, glob=_as_sql(pattern))


def _literal(pattern: str) -> str:
    """The fixed start of all names that match."""
    return re.split("[*?]", pattern, maxsplit=1)[0]


def _as_sql(pattern: str) -> str:
    """A pattern for SQLite's GLOB in which only `*` and `?` are special."""
    return pattern.replace("[", "[[]")


def _numbers(file: CatalogFile, query: str, **values: str) -> Iterator[int]:
    return (number for (number,) in file.select((int,), query, values))


def _key(text: str) -> str:
    """A name or pattern as it is looked up: SQLite's GLOB stops at NUL, and surrogates cannot be stored."""
    if not text.isprintable():
        text = text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    return text
