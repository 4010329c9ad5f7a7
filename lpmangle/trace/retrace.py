"""Puts the originals of mangled symbols back into a stream of bytes; all other bytes pass unchanged.

The stream is processed line by line as it comes, many lines at once if there are many. A line longer than MAX_LINE is
processed in pieces, never cut inside a name: memory does not grow with the input.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import add
from typing import NamedTuple

from lpmangle.store.open import open_sources
from lpmangle.trace.anchors import BUILD_ID_DIGITS, LEAD
from lpmangle.trace.lookup import MAX_LENGTH, Candidate, Known, Lookup, is_prefixed
from lpmangle.trace.missed import Missed, Reason, word

# How much is read at once; with half or twice as much, retrace is slower.
CHUNK = 1 << 16
MAX_LINE = 1 << 20
# How far from a name a payload in brackets is searched.
_CONTEXT = 4096

# xen/common/symbols.c:vsprintf's %ps prints NAME+0xOFFSET/0xSIZE [PAYLOAD], gdb NAME+OFFSET in decimal digits, and
# xen-crashdump-analyser PAYLOAD.NAME+0xOFFSET/0xROOM, in which 0 is `0` and ROOM reaches to the next symbol.
_TAIL = re.compile(
    rb"(?:\+(0x[0-9a-f]{1,16}|[0-9]{1,19})(?![0-9A-Za-z_])(?:/(0x[0-9a-f]{1,16}))?)?(?: \[([^\]\n]{1,128})\])?"
)
_BRACKETS = re.compile(rb"\[([^\]\[\n]{1,128})\]")
# The rest of a build-id after the line break in it.
_REST = re.compile(
    rb"(?:\x1b\[[0-9;]*[A-Za-z]|\(XEN\)|[^0-9A-Za-z\n]){0,16}([0-9a-f]{1,%d})(?![0-9A-Za-z_])" % BUILD_ID_DIGITS
)
# ASCII in UTF-16 or UTF-32, of either byte order.
_WIDE = re.compile(rb"(?:[!-~]\0{1,3}){8,}")
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
NEWLINE = 0x0A
_IN_NAME = re.compile(rb"[0-9A-Za-z_$.#~]")


class Spot(NamedTuple):
    """A place in the code, as in a trace: the new name, the offset, and the symbol's size in bytes, if it is there."""

    name: bytes
    offset: int
    size: int | None


class Replaced(NamedTuple):
    """A name that was put back, a payload that has it, and `place`: FILE:LINE in the sources, empty if not known."""

    name: bytes
    candidate: Candidate
    place: str


class Retracer:
    """Replaces names in a stream.

    With `annotate`, the mangled name stays, in parentheses after the original. `line_of` (candidate, spot) says what to
    add for a place in the code: empty for nothing, None if the candidate's payload has no such place. `prepare` is told
    of many such places at once, before `line_of` is asked for each. `tell_ambiguous` is called once for each name that
    is ambiguous, `tell_found` for each that was put back. `highlight` is put before and after an original.
    """

    def __init__(
        self,
        lookup: Lookup,
        *,
        annotate: bool = False,
        line_of: Callable[[Candidate, Spot], str | None] | None = None,
        prepare: Callable[[Iterable[tuple[Candidate, Spot]]], None] | None = None,
        tell_ambiguous: Callable[[bytes, list[Candidate]], None] | None = None,
        tell_found: Callable[[Replaced], None] | None = None,
        highlight: tuple[bytes, bytes] | None = None,
    ) -> None:
        self.missed = Missed()
        self._lookup = lookup
        self._annotate = annotate
        self._line_of = line_of
        self._prepare = prepare
        self._tell_ambiguous = tell_ambiguous
        self._tell_found = tell_found
        self._before, self._behind = highlight or (b"", b"")
        self._is_plain = not (annotate or line_of or tell_found or highlight)
        self._told: set[bytes] = set()
        self.begin()

    def begin(self, path: str = "", fd: int = -1) -> None:
        """Start a new input, which may have a file descriptor."""
        self.missed.begin(path, fd)
        self._rest: list[bytes] = []  # an unfinished line, in chunks: joining them once is enough
        self._size = 0  # of all chunks in `_rest`
        self._written = 0  # the part of them that has been handed out
        self._seen = 0  # anchors that end before it are done
        self._wrapped = b""  # a name at the end of the last line that may continue
        self._is_first = True

    def feed(self, chunk: bytes | bytearray, size: int | None = None) -> list[bytes]:
        """The next bytes of the input, `chunk[:size]`. Returns all lines that are complete now, in pieces."""
        end = len(chunk) if size is None else size
        cut = chunk.rfind(b"\n", 0, end) + 1
        view = memoryview(chunk)[:end]
        if not cut:
            self._rest.append(bytes(view))
            self._size += end
            return self._piece() if self._size > MAX_LINE + 2 * _CONTEXT else []
        pieces = None
        if not (self._rest or self._is_first or self._wrapped or chunk.find(b"\0", 0, cut) >= 0):
            pieces = self._quick(view[:cut])
            self.missed.lines.pass_over(chunk, cut if pieces else 0)
        if not pieces:
            pieces = self._lines(b"".join([*self._rest, view[:cut]]))
        self._rest, self._size = [bytes(view[cut:])] if cut < end else [], end - cut
        return pieces

    def end(self) -> list[bytes]:
        """The rest, which has no newline."""
        return self._lines(b"".join(self._rest)) if self._rest else []

    def text(self, text: bytes) -> bytes:
        """A whole input at once."""
        self.begin()
        return b"".join([*self.feed(text), *self.end()])

    def _lines(self, text: bytes) -> list[bytes]:
        """Whole lines; a part of the first may already be done (`_piece`)."""
        self._look_at(text, len(text))
        pieces = None if self._written else self._quick(text)
        if pieces is None:
            pieces, at = self._careful(text, len(text))
            pieces.append(text[at:])
        self._written = self._seen = 0
        self.missed.lines.pass_over(text, len(text))
        return pieces

    def _piece(self) -> list[bytes]:
        """A part of a line that is too long, up to the start of a name whose end may not have come yet.

        Whatever a name's meaning may depend on is kept on both sides.
        """
        text = b"".join(self._rest)
        limit = len(text) - 2 * _CONTEXT
        self._look_at(text, limit)
        pieces, at = self._careful(text, limit)
        done = max(at, limit - MAX_LENGTH)
        pieces.append(text[at:done])
        passed = max(0, done - _CONTEXT)
        self.missed.lines.pass_over(text, passed)
        self._rest, self._size = [text[passed:]], len(text) - passed
        self._written, self._seen = done - passed, limit - passed
        return pieces

    def _quick(self, text: bytes | memoryview) -> list[bytes] | None:
        """Whole lines in which all names are plain and have a blank before them: only the suffixes are removed.

        This takes few steps of the interpreter. None if there are other names, or more to do.
        """
        lookup = self._lookup
        if not (self._is_plain and lookup.simple):
            return None
        parts = lookup.anchor.split(text)
        heads, anchors = parts[:-1:2], parts[1::2]
        words = [head.rpartition(b" ")[2] for head in heads]
        if lookup.plain.issuperset(map(add, words, anchors)):
            return parts[::2]
        if lookup.load_for(anchors) and lookup.plain.issuperset(map(add, words, anchors)):
            return parts[::2]
        return None

    def _careful(self, text: bytes, limit: int) -> tuple[list[bytes], int]:
        """The same for all names whose suffix ends before `limit`, and how far the pieces reach."""
        if self._prepare:
            self._prepare(self._places(text, limit))
        pieces: list[bytes] = []
        at = self._written
        for low, high in self._anchors(text, limit):
            if high <= self._seen or low < at:
                continue  # already done, or inside a name
            if text[high - 1] == NEWLINE:
                self._wrapped = word(text, low, high).rstrip(b"=\r\n")
                self._look_whether_wrapped(text, high)
            elif known := self._known(text, low, high, at):
                end, new = self._replacement(text, known)
                pieces += text[at : known.low], new
                at = end
            else:
                self._miss(text, low, high)
        return pieces, at

    def _anchors(self, text: bytes, limit: int) -> Iterator[tuple[int, int]]:
        """Where names may be whose suffix ends before `limit`, but for what is long done."""
        for match in self._lookup.anchor.finditer(text, max(0, self._seen - MAX_LENGTH)):
            if match.end() > limit:
                break
            yield match.span()

    def _known(self, text: bytes, low: int, high: int, at: int) -> Known | None:
        """The name with the anchor `text[low:high]`; it begins at `at` or behind."""
        # A plain name with a blank before it, as nearly all are; then there is no longer one.
        begin = text.rfind(b" ", at, low) + 1
        if begin and self._lookup.simple and text[begin:high] in self._lookup.plain:
            return Known(begin, high, text[begin:low])
        return self._lookup.find(text, low, high, at)

    def _replacement(self, text: bytes, known: Known) -> tuple[int, bytes]:
        """The replacement of a known name with what belongs to it, and where that ends."""
        low, high, original = known
        name = text[low:high]
        if original is not None and not (self._line_of or self._tell_found):
            return high, self._shown(original, name)
        tail = _TAIL.match(text, high)
        assert tail is not None  # it may be empty
        candidates = self._meant(text, known, tail[3])
        originals = {candidate.original for candidate in candidates}
        if len(originals) > 1:
            if self._tell_ambiguous and name not in self._told:
                self._told.add(name)
                self._tell_ambiguous(name, candidates)
            return high, name
        new, end, place = self._shown(originals.pop(), name), high, ""
        if self._line_of and tail[1]:
            spot = _spot(text, known, tail, candidates)
            lines = {self._line_of(candidate, spot) for candidate in candidates} - {None}
            if len(lines) == 1 and (line := lines.pop()):
                end, place = tail.end(), line
                new += tail[0] + f" ({line})".encode("utf-8", "surrogateescape")
        if self._tell_found:
            self._tell_found(Replaced(name, candidates[0], place))
        return end, new

    def _places(self, text: bytes, limit: int) -> Iterator[tuple[Candidate, Spot]]:
        """What `_careful` will ask the lines of, and perhaps some that it will not."""
        for low, high in self._anchors(text, limit):
            known = text[high - 1] != NEWLINE and self._known(text, low, high, 0)
            if known and (tail := _TAIL.match(text, known.high)) and tail[1]:
                candidates = self._meant(text, known, tail[3])
                spot = _spot(text, known, tail, candidates)
                yield from [(candidate, spot) for candidate in candidates]

    def _meant(self, text: bytes, known: Known, behind: bytes | None) -> list[Candidate]:
        """The meanings of a known name; if a payload is named with it, before or `behind` it, only those of that."""
        candidates = self._lookup.candidates(text[known.low : known.high])
        if len(candidates) > 1:
            return _of_payload(candidates, text, known.low, known.high, behind) or candidates
        return candidates

    def _shown(self, original: bytes, name: bytes) -> bytes:
        new = self._before + original + self._behind
        return new + b" (" + name + b")" if self._annotate else new

    def _miss(self, text: bytes, low: int, high: int) -> None:
        """Count an anchor without a known name."""
        suffix = self._lookup.unique_suffix(text, high)
        is_digits = not text[low : high - len(suffix)].strip(b"0123456789abcdef")
        if is_digits and not ((low and _IN_NAME.match(text, low - 1)) or _IN_NAME.match(text, high)):
            return  # not a name, if templates have nothing between name and suffix
        if self._lookup.is_known(suffix):
            self.missed.add(Reason.NO_SUCH_NAME, text, low, high)
        elif suffix:
            self.missed.add_unknown(suffix, text, low, high)

    def _look_at(self, text: bytes, limit: int) -> None:
        """Count the names that no anchor finds in the new part of `text[:limit]`, which is lines or a piece of one."""
        if self._is_first:
            self._is_first = False
            if text.startswith(_UTF_16_MARKS):
                self.missed.add_mark()
        if self._wrapped:
            self._look_whether_wrapped(text, 0)
        for match in _WIDE.finditer(text, self._seen, limit) if b"\0" in text else ():
            run = match[0].replace(b"\0", b"")
            for low, high in [anchor.span() for anchor in self._lookup.anchor.finditer(run)]:
                if self._lookup.find(run, low, high):
                    self.missed.add(Reason.WIDE, text, match.start(), match.end(), word(run, low, high))

    def _look_whether_wrapped(self, text: bytes, at: int) -> None:
        """Whether the line at `text[at]` begins with the rest of the build-id at the end of `_wrapped`."""
        if rest := _REST.match(text, at):
            build_id = self._wrapped.rpartition(LEAD)[2] + rest[1]
            self._lookup.load_for([build_id])
            if self._lookup.is_known(build_id):
                self.missed.add(Reason.WRAPPED, text, at, rest.end(), self._wrapped + rest[1])
        if at < len(text):
            self._wrapped = b""


def _of_payload(candidates: list[Candidate], text: bytes, low: int, high: int, behind: bytes | None) -> list[Candidate]:
    """Those whose payload is named with `text[low:high]`: before it, `behind` it, or else on its line."""
    if prefixed := [candidate for candidate in candidates if is_prefixed(text, low, candidate.payload)]:
        return prefixed
    payloads = [behind] if behind else _in_brackets(text, low, high)
    named = {payload.decode("utf-8", "replace") for payload in payloads}
    return [candidate for candidate in candidates if candidate.payload in named]


def _spot(text: bytes, known: Known, tail: re.Match[bytes], candidates: list[Candidate]) -> Spot:
    """The place that the name and its tail mean."""
    # The analyser of crash dumps does not know sizes, only where the next symbol is.
    is_size = tail[2] and not any(is_prefixed(text, known.low, candidate.payload) for candidate in candidates)
    return Spot(text[known.low : known.high], _number(tail[1]), int(tail[2], 16) if is_size else None)


def _number(digits: bytes) -> int:
    return int(digits, 16 if digits.startswith(b"0x") else 10)


def _in_brackets(text: bytes, low: int, high: int) -> list[bytes]:
    """What is in brackets elsewhere on the line, within a limit."""
    begin = text.rfind(b"\n", max(0, low - _CONTEXT), low) + 1 or max(0, low - _CONTEXT)
    end = text.find(b"\n", high, high + _CONTEXT)
    return _BRACKETS.findall(text[begin : end if end >= 0 else high + _CONTEXT])


def copy(path: str, fd: int, write: Callable[[list[bytes]], None], retracer: Retracer) -> None:
    """Copy everything from `fd`, with names replaced; each line is written as soon as it is complete, in pieces."""
    retracer.begin(path, fd)
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    kept = 0  # bytes of an unfinished line
    while count := os.readv(fd, [view[kept:]]):
        end = kept + count
        cut = buffer.rfind(b"\n", kept, end) + 1
        if not cut and end < CHUNK:
            kept = end
            continue
        cut = cut or end  # a long line is written in parts
        write(retracer.feed(buffer, cut))
        kept = end - cut
        buffer[:kept] = buffer[cut:end]
    if kept:
        write(retracer.feed(buffer, kept))
    write(retracer.end())


def retrace(text: bytes, sources: Sequence[str], *, annotate: bool = False) -> bytes:
    """A whole log with the original names put back; everything else is unchanged.

    `sources` are words as for `lpmangle retrace -m`; if empty, those of LPMANGLE_MANIFESTS and DEBUGINFOD_URLS. With
    `annotate`, mangled names stay in parentheses after the originals. Raises LpmangleError for a source that cannot be
    read.
    """
    return Retracer(Lookup(open_sources(sources)), annotate=annotate).text(text)
