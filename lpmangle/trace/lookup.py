"""From a mangled name in text to the original; manifests are loaded when their suffix is met.

At an anchor (`anchors`) the names with that suffix are tried, the longest first. So we need not know which characters a
name has, or what may be around it.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import repeat
from typing import NamedTuple

from lpmangle.errors import LpmangleError
from lpmangle.mangle.names import MIN_DIGITS
from lpmangle.manifest.read import Name, Names
from lpmangle.store.source import Sources
from lpmangle.trace.anchors import BUILD_ID, BUILD_ID_DIGITS, LEAD, begins_word, ends_unique, ends_word, pattern
from lpmangle.xen.abi import MAX_NAME

# Longer names, which lpmangle never makes, are not searched.
MAX_LENGTH = 1024
_PRINTABLE = bytes(range(0x21, 0x7F))


class Candidate(NamedTuple):
    """One meaning of a mangled name: the original, and the payload whose manifest says so."""

    original: bytes
    payload: str
    build_id: str
    where: str


class Known(NamedTuple):
    """A known name in a text, `text[low:high]`, and its original; None if manifests disagree."""

    low: int
    high: int
    original: bytes | None


class _Suffix:
    """What is known about a suffix.

    `known`: there is a manifest with it; `unique`: it is a payload's build-id, or the start of one; `plain`: plain
    names, in parts; `others`: how far all other names reach to both sides of its end.
    """

    def __init__(self) -> None:
        self.known = self.unique = False
        self.plain: list[list[bytes]] = []
        self.others: set[tuple[int, int]] = set()

    @cached_property
    def reaches(self) -> list[tuple[int, int]]:
        """How far names reach to both sides of its end, the longest first."""
        plain = {(size, 0) for names in self.plain for size in set(map(len, names))}
        return sorted(plain | self.others, key=sum, reverse=True)


class Lookup:
    """`anchor` finds the places in a text where a name may be; it is a group, so that `split` keeps them.

    Nearly all names are their original, `_` and the suffix: these are `plain`. If all templates end with the suffix
    (`simple`), such a name with a blank before it needs no other search.
    """

    def __init__(self, sources: Sources) -> None:
        self.trouble: list[LpmangleError] = []  # what is wrong with manifests
        self.plain: set[bytes] = set()
        self._others: dict[bytes, bytes | None] = {}  # originals by name; None: manifests disagree
        self._suffixes: dict[bytes, _Suffix] = {}
        self._indexes: dict[bytes, dict[bytes, list[Candidate]]] = {}  # by suffix
        self._sources = sources
        shapes = set(sources.shapes())
        suffixes = {shape.suffix.encode() for shape in shapes}
        self._overlap = any(map(_has_other, suffixes, repeat(suffixes)))
        self.simple = all(shape.template.endswith("{suffix}") for shape in shapes)
        self.anchor = re.compile(b"(%b)" % pattern(shapes))
        self._sizes = sorted({BUILD_ID_DIGITS} | set(map(len, suffixes)), reverse=True)
        for suffix in sorted(suffixes):
            if not BUILD_ID.fullmatch(suffix):
                self._load(suffix)

    def load_for(self, anchors: Iterable[bytes]) -> bool:
        """Load the manifests of all build-ids that end there. Returns whether any had not been loaded."""
        ends = dict.fromkeys(anchor[-BUILD_ID_DIGITS:] for anchor in anchors)
        fresh = [suffix for suffix in ends if suffix not in self._suffixes and BUILD_ID.fullmatch(suffix)]
        for suffix in fresh:
            self._load(suffix)
        return bool(fresh)

    def is_known(self, suffix: bytes) -> bool:
        """Whether there is a manifest with it."""
        return suffix in self._suffixes and self._suffixes[suffix].known

    def unique_suffix(self, text: bytes, end: int) -> bytes:
        """The unique suffix before `text[end:]`, known or not; empty if there is none."""
        for size in self._sizes:
            suffix = text[max(0, end - size) : end]
            if BUILD_ID.fullmatch(suffix) or (suffix in self._suffixes and self._suffixes[suffix].unique):
                return suffix
        return b""

    def find(self, text: bytes, start: int, end: int, floor: int = 0) -> Known | None:
        """The longest known name with its suffix in the anchor `text[start:end]` that does not begin before `floor`."""
        self.load_for((text[start:end], text[start : start + BUILD_ID_DIGITS]))
        found = [known for size in self._sizes for known in self._find(text, start, end, floor, size)]
        return max(found, key=lambda known: known.high - known.low, default=None)

    def _find(self, text: bytes, start: int, end: int, floor: int, size: int) -> Iterator[Known]:
        """The same for suffixes of one size: at the end of the anchor, or at its start if digits follow there."""
        for at in (end,) if start + size >= end else (end, start + size):
            if at < size or (suffix := self._suffixes.get(text[at - size : at])) is None:
                continue
            for left, right in suffix.reaches:
                low, high = at - left, at + right
                name = text[low:high] if low >= floor else b""
                if name in self._others:
                    original = self._others[name]
                elif name in self.plain and right == 0 and text.endswith(LEAD, 0, at - size):
                    original = name[: -len(LEAD) - size]
                else:
                    continue
                unique = suffix.unique and ends_unique(text, high)
                if unique or (ends_word(text, high) and self._begins(text, low, name)):
                    yield Known(low, high, original)
                    break

    def _begins(self, text: bytes, low: int, name: bytes) -> bool:
        """Whether a name whose suffix is not unique can begin there: as a word, or after its payload's name."""
        return begins_word(text, low) or any(is_prefixed(text, low, one.payload) for one in self.candidates(name))

    def candidates(self, name: bytes) -> list[Candidate]:
        """The meanings of a known name, each with its payload."""
        found: dict[tuple[bytes, str], Candidate] = {}
        parts = (name[at : at + size] for size in self._sizes for at in range(len(name) - size + 1))
        for suffix in filter(self._suffixes.__contains__, dict.fromkeys(parts)):
            for candidate in self._index(suffix).get(name, ()):
                found.setdefault((candidate.original, candidate.build_id or candidate.payload), candidate)
        return list(found.values())

    def _index(self, suffix: bytes) -> dict[bytes, list[Candidate]]:
        """All names of the manifests with a suffix, which are read again, because few logs need it."""
        if suffix not in self._indexes:
            index = self._indexes[suffix] = {}
            for names, where in self._read(suffix):
                for one in _named(names):
                    candidate = Candidate(one.original.encode(), names.payload, names.build_id or "", where)
                    for name in _spellings(one):
                        index.setdefault(name, []).append(candidate)
        return self._indexes[suffix]

    def _read(self, suffix: bytes) -> Iterator[tuple[Names, str]]:
        """The manifests with a suffix, and where they are; what is wrong with one goes to `trouble`."""
        try:
            for found in self._sources.with_suffix(suffix.decode()):
                try:
                    yield found.names, found.where
                except LpmangleError as error:
                    self.trouble.append(error)
        except LpmangleError as error:
            self.trouble.append(error)

    def _load(self, suffix: bytes) -> None:
        known = self._suffixes[suffix] = _Suffix()
        for names, _ in self._read(suffix):
            known.known = True
            unique = BUILD_ID.fullmatch(suffix) or (names.build_id or "").encode().startswith(suffix)
            known.unique |= bool(unique) and len(suffix) >= MIN_DIGITS
            self._add(_named(names), suffix, known)

    def _add(self, several: list[Name], suffix: bytes, known: _Suffix) -> None:
        """Add the names with that suffix; others wait until their own suffix is met."""
        new = _all_plain(several, suffix)
        if new and not self._overlap and self._others.keys().isdisjoint(new):
            self.plain.update(new)
            known.plain.append(new)
            return
        for one in several:
            original = one.original.encode()
            for name in _spellings(one):
                ends = [match.end(1) for match in re.finditer(b"(?=(%b))" % re.escape(suffix), name)]
                if ends and _is_fit(name) and _is_fit(original):
                    known.others.update((end, len(name) - end) for end in ends)
                    self._add_one(name, original, suffix)

    def _add_one(self, name: bytes, original: bytes, suffix: bytes) -> None:
        is_plain = name == original + LEAD + suffix and not self._overlap
        if not (name in self.plain or name in self._others):
            if is_plain:
                self.plain.add(name)
            else:
                self._others[name] = original
        elif (is_plain and name in self.plain) or self._others.get(name) == original:
            return  # it is already there
        elif len({candidate.original for candidate in self.candidates(name)}) > 1:
            self.plain.discard(name)
            self._others[name] = None


def is_prefixed(text: bytes, low: int, payload: str) -> bool:
    """Whether its payload's name precedes `text[low:]`: PAYLOAD.NAME, as xen-crashdump-analyser prints it."""
    prefix = payload.encode() + b"."
    return text.endswith(prefix, 0, low) and begins_word(text, low - len(prefix))


def _named(names: Names) -> list[Name]:
    return [*names.symbols, *names.references, *names.functions]


def _spellings(one: Name) -> set[bytes]:
    """The new name, and the part that Xen keeps (build_symbol_table: strlcpy to KSYM_NAME_LEN)."""
    name = one.name.encode()
    return {name, name[:MAX_NAME]} if len(name) <= MAX_LENGTH else set()


def _all_plain(several: list[Name], suffix: bytes) -> list[bytes]:
    """The new names, if all of them are just their original, `_` and the suffix."""
    tail = (LEAD + suffix).decode()
    originals = "\n".join([one.original for one in several])
    names = "\n".join([one.name for one in several])
    if (
        not several
        or names != originals.replace("\n", tail + "\n") + tail
        or suffix.decode() in originals
        or names.encode().translate(None, _PRINTABLE) != b"\n" * (len(several) - 1)
    ):
        return []
    new = names.encode().split(b"\n")
    return new if max(map(len, new)) <= MAX_NAME else []


def _is_fit(name: bytes) -> bool:
    """False with blanks, which end a name in text, and with control characters for a terminal."""
    return b" " not in name and name.decode("utf-8", "replace").isprintable()


def _has_other(suffix: bytes, several: set[bytes]) -> bool:
    """Whether a name with that suffix also looks like a name with another one: `v1` in `x_v1`."""
    tails = (suffix[match.end() :] for match in re.finditer(re.escape(LEAD), suffix))
    return any(tail in several or BUILD_ID.fullmatch(tail) for tail in tails)
