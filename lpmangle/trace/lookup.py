"""From a mangled name, as it stands in text, to the original; manifests are loaded when their suffix is met.

A *name character* is a letter, a digit, one of `_ $ . # / ~ @ -`, or a byte above 127. A symbol in text is whole when
neither of its neighbours is a name character; so `+0x1f/0x24` ends it, and `(`, `[`, `'`, `:`, a blank or a NUL bound
it. Dots behind it end a sentence. A name that contains other characters (a suffix may) is found all the same.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import compress, islice, repeat
from operator import not_
from typing import NamedTuple

from lpmangle.errors import LpmangleError
from lpmangle.store.source import Found, Shape, Sources
from lpmangle.xen.abi import MAX_NAME

NAME_CHARACTERS = rb"A-Za-z0-9_$.#/~@\-\x80-\xff"
_NOT_DOT = NAME_CHARACTERS.replace(b".", b"")
_END = rb"(?!\.*[%b])" % _NOT_DOT
# A full build-id: the suffix that needs no list, as a server can be asked for it. Others are read beforehand.
BUILD_ID_DIGITS = 40
BUILD_ID = re.compile(rb"[0-9a-f]{%d}" % BUILD_ID_DIGITS)
_HEX = re.compile(r"[0-9a-f]+")
_CHARACTERS = bytes(code for code in range(256) if re.match(rb"[%b]" % NAME_CHARACTERS, bytes([code])))
_BEGIN = re.compile(rb"(?<![%b])" % NAME_CHARACTERS)
_STOP = re.compile(rb"(?![%b])" % NAME_CHARACTERS)
_RUN = re.compile(rb"[%b]*" % NAME_CHARACTERS)
_WIDE_RUN = re.compile(rb"[!-~\x80-\xff]*")
# Longer runs of characters hold no name of ours.
MAX_RUN = 4096
# So many boundaries inside a run are tried as ends of an unusual name.
_MAX_BOUNDARIES = 8


def _is_fit(name: str) -> bool:
    """Not so with blanks, which end a name in text, or what a terminal does not show but obeys."""
    return " " not in name and name.isprintable()


class Candidate(NamedTuple):
    """One meaning of a mangled name: the original, and the payload whose manifest says so."""

    original: bytes
    payload: str
    build_id: str
    where: str


class Lookup:
    """`known` has every name with one meaning, `ambiguous` those of which manifests say different things.

    `anchor` finds the places in a text where a name may be, `ends` is the same as a group; `simple` says that every
    name loaded so far is made of name characters and ends where its anchor does.
    """

    def __init__(self, sources: Sources, trouble: "list[LpmangleError] | None" = None) -> None:
        """What is wrong with a manifest goes to `trouble`."""
        self.known: dict[bytes, bytes] = {}
        self.ambiguous: dict[bytes, list[Candidate]] = {}
        self.trouble = [] if trouble is None else trouble
        self._sources = sources
        self._tables: list[tuple[dict[bytes, bytes], Candidate]] = []  # of each manifest; `original` is empty
        self._several: dict[bytes, list[Candidate]] = {}  # for names that several payloads have
        self._loaded: dict[str, bool] = {}
        self._unusual = False  # there are names with other than name characters
        shapes = set(sources.shapes())
        self.simple = all(shape.template.endswith("{suffix}") for shape in shapes)
        anchor = _anchor(shapes)
        self.anchor = re.compile(anchor)
        self.ends = re.compile(b"(%b)" % anchor)
        self._anchored = re.compile(b".*(?:%b)" % anchor).fullmatch
        for suffix in {shape.suffix for shape in shapes}:
            if not BUILD_ID.fullmatch(suffix.encode()):
                self._load(suffix)

    def load_for(self, text: bytes) -> bool:
        """Load the manifests of all build-ids in `text`; whether there was one that had not been loaded."""
        fresh = [i for i in dict.fromkeys(map(bytes.decode, BUILD_ID.findall(text))) if i not in self._loaded]
        for build_id in fresh:
            self._load(build_id)
        return bool(fresh)

    def has(self, build_id: bytes) -> bool:
        """Whether there was a manifest for it."""
        return self._loaded.get(build_id.decode(), False)

    def span(self, text: bytes, start: int, end: int, floor: int) -> tuple[int, int, bool]:
        """The whole symbol around the anchor `text[start:end]`, not before `floor`; and whether it is known.

        If it is not known, the run of name characters around the anchor, without dots behind it.
        """
        low, high = self._run(text, start, end, floor, _RUN)
        known = self._is_known(text[low:high])
        if not known:
            high = max(end, low + len(text[low:high].rstrip(b".")))
            known = self._is_known(text[low:high])
        found = (low, high, known)
        if self._unusual:
            low, high = self._run(text, start, end, max(floor, start - MAX_NAME), _WIDE_RUN)
            high = min(high, end + MAX_NAME)
            self.load_for(text[low:high])
            names, others = self.known, self.ambiguous
            lows = [low + m.start() for m in _BEGIN.finditer(text[low : start + 1])][-_MAX_BOUNDARIES:]
            highs = [end + m.start() for m in islice(_STOP.finditer(text[end:high]), _MAX_BOUNDARIES)]
            for low in lows:
                for high in reversed(highs):
                    name = text[low:high]
                    if (not found[2] or high - low > found[1] - found[0]) and (name in names or name in others):
                        return low, high, True
        return found

    def candidates(self, name: bytes) -> Sequence[Candidate]:
        """The meanings of a known name."""
        if several := self._several.get(name):
            return several
        return next([owner._replace(original=table[name])] for table, owner in self._tables if name in table)

    def _is_known(self, name: bytes) -> bool:
        if name in self.known or name in self.ambiguous:
            return True
        return self.load_for(name) and (name in self.known or name in self.ambiguous)

    @staticmethod
    def _run(text: bytes, start: int, end: int, floor: int, run: re.Pattern[bytes]) -> tuple[int, int]:
        """How far characters of a kind go on, to the left and to the right."""
        left = run.match(text[max(floor, start - MAX_RUN) : start][::-1])
        right = run.match(text, end, min(len(text), end + MAX_RUN))
        assert left is not None
        assert right is not None
        return start - left.end(), right.end()

    def _load(self, suffix: str) -> None:
        self._loaded[suffix] = False
        try:
            several = list(self._sources.with_suffix(suffix))
        except LpmangleError as error:
            self.trouble.append(error)
            return
        for found in several:
            try:
                self._add_names(found, suffix)
                self._loaded[suffix] = True
            except LpmangleError as error:
                self.trouble.append(error)

    def _add_names(self, found: Found, suffix: str) -> None:
        names = found.names
        several = (*names.symbols, *names.references, *names.functions)
        new = {symbol.name.encode(): symbol.original.encode() for symbol in several}
        if b"".join([*new, *new.values()]).translate(None, _CHARACTERS):
            new = {n: o for n, o in new.items() if _is_fit((n + o).decode())}
            self._unusual = self._unusual or any(name.translate(None, _CHARACTERS) for name in new)
        if max(map(len, new), default=0) > MAX_NAME:
            new |= {name[:MAX_NAME]: original for name, original in new.items()}
        others = compress(new, map(not_, map(bytes.endswith, new, repeat(suffix.encode()))))
        self.simple = self.simple and not self._unusual and all(map(self._anchored, others))
        self._add(new, Candidate(b"", names.payload, names.build_id or "", found.where))

    def _add(self, new: dict[bytes, bytes], owner: Candidate) -> None:
        known = self.known
        for name in [*(known.keys() & new.keys()), *(self.ambiguous.keys() & new.keys())]:
            meanings = list(self.candidates(name))
            if not any(c.original == new[name] and c.build_id == owner.build_id for c in meanings):
                meanings = self._several[name] = [*meanings, owner._replace(original=new[name])]
            if len({candidate.original for candidate in meanings}) > 1:
                self.ambiguous[name] = meanings
                known.pop(name, None)
                del new[name]
        self._tables.append((new, owner))
        known |= new


def _anchor(shapes: Iterable[Shape]) -> bytes:
    """A regular expression for suffixes with the literal that their template has before them.

    `_` and a full build-id is always among them. A literal at the beginning makes the search several times faster.
    """
    texts: dict[str, set[bytes]] = {"_": set()}
    digits: dict[str, set[int]] = {"_": {BUILD_ID_DIGITS}}
    goes_on = set()  # leads of templates that have something behind the suffix
    for template, suffix in shapes:
        before, _, after = template.partition("{suffix}")
        lead = "" if before.endswith("}") else before[-1:]
        if _HEX.fullmatch(suffix):
            digits.setdefault(lead, set()).add(len(suffix))
        else:
            texts.setdefault(lead, set()).add(suffix.encode())
        if after:
            goes_on.add(lead)
    parts = []
    for lead in sorted(texts.keys() | digits.keys(), reverse=True):
        inner = [b"[0-9a-f]{%d}" % length for length in sorted(digits.get(lead, ()), reverse=True)]
        if texts.get(lead):
            inner.append(_trie(list(texts[lead])))
        alternatives = inner[0] if len(inner) == 1 else b"(?:" + b"|".join(inner) + b")"
        parts.append(re.escape(lead.encode()) + alternatives + (b"" if lead in goes_on else _END))
    return b"|".join(parts)


def _trie(words: Sequence[bytes]) -> bytes:
    """A regular expression for any of `words`, the longest first, that looks at each byte of the text once."""
    if words == [b""]:
        return b""
    by_first: dict[bytes, list[bytes]] = {}
    for word in sorted(set(words)):
        by_first.setdefault(word[:1], []).append(word[1:])
    optional = by_first.pop(b"", None) is not None
    branches = [re.escape(first) + _trie(rest) for first, rest in by_first.items()]
    return b"(?:" + b"|".join(branches) + b")" + (b"?" if optional else b"")
