"""Mangled symbols in a stream of bytes back to their originals; all other bytes pass as they are.

The stream is taken line by line as it comes, many lines at once where there are many. A line that is longer than
MAX_LINE is taken in pieces, never cut inside a run of name characters: memory does not grow with the input.
"""

import os
import re
from collections.abc import Callable, Iterator
from itertools import accumulate, compress, repeat
from operator import add, is_
from typing import NamedTuple

from lpmangle.trace.lookup import BUILD_ID, MAX_RUN, NAME_CHARACTERS, Candidate, Lookup

# From 128 KiB on glibc takes each block's memory from the system and gives it back: that were a sixth of the time.
CHUNK = 1 << 16
MAX_LINE = 1 << 20
# Left of a long line for the next piece, so that what follows a name (offset, payload) is seen with it.
_LOOK_AHEAD = 2 * MAX_RUN
# So many unknown build-ids are told apart in the report.
MAX_UNKNOWN = 1000

# xen/common/symbols.c:vsprintf's %ps prints NAME+0xOFFSET/0xSIZE [PAYLOAD]
_TAIL = re.compile(rb"(?:\+(0x[0-9a-f]+)(?:/0x[0-9a-f]+)?)?(?: \[([^\]\n]{1,128})\])?")
_BRACKETS = re.compile(rb"\[([^\]\[\n]{1,128})\]")
_NAME_END = re.compile(rb"[%b]+\Z" % NAME_CHARACTERS)
_NAME_BEGIN = re.compile(rb"[%b]+" % NAME_CHARACTERS)


class Unknown(NamedTuple):
    """Names that look mangled but are in no manifest: how many with this build-id, and one of them."""

    times: int
    example: bytes


class Retracer:
    """Replaces names in blocks of text.

    With `annotate` the mangled name stays, in brackets, behind the original. `line_of` (candidate, name, offset) says
    what to add for a place in the code. `tell_ambiguous` is called once for each name that cannot be decided.
    """

    def __init__(
        self,
        lookup: Lookup,
        *,
        annotate: bool = False,
        line_of: Callable[[Candidate, bytes, int], str] | None = None,
        tell_ambiguous: Callable[[bytes, list[Candidate]], None] | None = None,
    ) -> None:
        self.unknown: dict[bytes, Unknown] = {}
        self.unknown_count = 0
        self._lookup = lookup
        self._annotate = annotate
        self._line_of = line_of
        self._tell_ambiguous = tell_ambiguous
        self._told: set[bytes] = set()

    def translate(self, block: "Block") -> bytes:
        """A part of the input, replaced."""
        text, begin, end = block
        return b"".join([text[:begin], *self.block(text, begin, end)] if begin else self.block(text, 0, end))

    def block(self, text: bytes, start: int = 0, end: int | None = None) -> list[bytes]:
        """`text[start:end]` in pieces, names replaced. What is behind `end` is looked at, but not returned.

        No name crosses `start` or `end`.
        """
        stop = len(text) if end is None else end
        if self._lookup.simple and not self._annotate and not self._line_of and not start and stop == len(text):
            return self._quick(text)
        out: list[bytes] = []
        at = start
        for match in self._lookup.anchor.finditer(text, start):
            low, high = match.span()
            if low >= stop:
                break
            if low < at:
                continue  # a second anchor in a name that is done
            low, high, replacement = self._slow(text, low, high, at)
            out += text[at:low], replacement
            at = high
        out.append(text[at:stop])
        return out

    def _quick(self, text: bytes) -> list[bytes]:
        """The same for a whole text whose names all end with their anchors.

        A known name with a blank before it costs few steps of the interpreter; that is half the time.
        """
        lookup, get = self._lookup, self._lookup.known.get
        parts = lookup.ends.split(text)
        heads, anchors = parts[:-1:2], parts[1::2]
        words = [head[head.rfind(b" ") + 1 :] for head in heads]
        names = list(map(add, words, anchors))
        originals = list(map(get, names))
        if originals == words:  # suffixes were taken off, no more
            return parts[::2]
        if None in originals and lookup.load_for(b" ".join(compress(names, map(is_, originals, repeat(None))))):
            return self.block(text)
        if None in originals:
            bounds = list(accumulate(map(len, parts), initial=0))
            for number in [number for number, original in enumerate(originals) if original is None]:
                begin, low, high = bounds[2 * number : 2 * number + 3]
                low, _, originals[number] = self._slow(text, low, high, begin)
                heads[number], words[number] = text[begin:low], b""
        parts[:-1:2], parts[1::2] = map(bytes.removesuffix, heads, words), originals
        return parts

    def _slow(self, text: bytes, low: int, high: int, floor: int) -> tuple[int, int, bytes]:
        """Where the symbol around an anchor is (with what belongs to it), and what to put there."""
        lookup = self._lookup
        low, high, known = lookup.span(text, low, high, floor)
        name = text[low:high]
        if not known:
            self._count_unknown(name)
            return low, high, name
        tail = _TAIL.match(text, high)
        assert tail is not None
        if self._annotate and not self._line_of and (original := lookup.known.get(name)) is not None:
            return low, high, original + b" (" + name + b")"
        candidates = list(lookup.candidates(name))
        if len(candidates) > 1:
            payload = tail[2] and tail[2].decode("utf-8", "replace")
            on_line = [payload] if payload else _in_brackets(text, low, high)
            candidates = [c for c in candidates if c.payload in on_line] or candidates
        if len({candidate.original for candidate in candidates}) > 1:
            if self._tell_ambiguous and name not in self._told:
                self._told.add(name)
                self._tell_ambiguous(name, candidates)
            return low, high, name
        new = candidates[0].original
        if self._annotate:
            new += b" (" + name + b")"
        if self._line_of and tail[1]:
            lines = {self._line_of(candidate, name, int(tail[1], 16)) for candidate in candidates} - {""}
            if len(lines) == 1:  # a stacked payload knows names of those below it, but not their places
                return low, tail.end(), new + tail[0] + f" ({lines.pop()})".encode("utf-8", "surrogateescape")
        return low, high, new

    def _count_unknown(self, name: bytes) -> None:
        for build_id in BUILD_ID.findall(name)[-1:]:
            if not self._lookup.has(build_id):
                self.unknown_count += 1
                if build_id in self.unknown or len(self.unknown) < MAX_UNKNOWN:
                    count = self.unknown[build_id].times if build_id in self.unknown else 0
                    self.unknown[build_id] = Unknown(count + 1, name)


def _in_brackets(text: bytes, low: int, high: int) -> list[str]:
    """What stands in brackets elsewhere on the line, as far as one looks."""
    begin = text.rfind(b"\n", max(0, low - MAX_RUN), low) + 1 or max(0, low - MAX_RUN)
    end = text.find(b"\n", high, high + MAX_RUN)
    line = text[begin : end if end >= 0 else high + MAX_RUN]
    return [word.decode("utf-8", "replace") for word in _BRACKETS.findall(line)]


def copy(fd: int, write: Callable[[bytes], None], retracer: Retracer) -> None:
    """Everything that can be read from `fd`, replaced; each line is written as soon as it is there."""
    for block in blocks(iter(lambda: os.read(fd, CHUNK), b"")):
        write(retracer.translate(block))


class Block(NamedTuple):
    """A part of the input, `text[:end]`; `text[:begin]` is the rest of a run that is too long for a name."""

    text: bytes
    begin: int
    end: int


def blocks(chunks: Iterator[bytes]) -> Iterator[Block]:
    """The input in whole lines, as many as there are; a line that is too long in pieces."""
    rest: list[bytes] = []  # an unfinished line, in chunks: joining them once is enough
    size = 0
    inside = False  # a run of name characters too long for a name was cut
    for chunk in chunks:
        cut = chunk.rfind(b"\n") + 1
        if not cut and size + len(chunk) <= MAX_LINE + _LOOK_AHEAD:
            rest.append(chunk)
            size += len(chunk)
            continue
        if cut and not inside:
            yield Block(b"".join([*rest, memoryview(chunk)[:cut]]), 0, size + cut)
            rest, size = [chunk[cut:]], len(chunk) - cut
            continue
        text = b"".join([*rest, chunk])
        cut = cut + size if cut else _cut(text)
        yield Block(text, _pass_run(text, 0, cut) if inside else 0, cut)
        inside = _long_run(text, cut)
        rest, size = [text[cut:]], len(text) - cut
    text = b"".join(rest)
    if text:
        yield Block(text, _pass_run(text, 0, len(text)) if inside else 0, len(text))


def _cut(text: bytes) -> int:
    """Where to cut a long line: before a run of name characters, or inside one that is too long for a name."""
    at = len(text) - _LOOK_AHEAD
    run = _NAME_END.search(text, at - MAX_RUN, at)
    return run.start() if run and run.start() > at - MAX_RUN else at


def _long_run(text: bytes, cut: int) -> bool:
    """Whether a run of name characters goes on over `cut`."""
    return bool(_NAME_END.search(text, max(0, cut - 1), cut) and _NAME_BEGIN.match(text, cut))


def _pass_run(text: bytes, begin: int, end: int) -> int:
    """Where the run of name characters that begins at `begin` ends."""
    run = _NAME_BEGIN.match(text, begin, end)
    return run.end() if run else begin
