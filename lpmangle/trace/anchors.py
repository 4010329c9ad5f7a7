"""Where a mangled name may be in a text: at an *anchor*, a suffix with the character that its template has before it.

A full build-id is unique: a name that ends in one is recognised whatever is around it, unless a letter, digit or `_`
follows. A suffix such as `v1` may be the end of any word. Before and after a name with such a suffix, there must be a
character that no symbol contains, or an escape, a colour, a quote, a dash.
"""

import re
from collections.abc import Iterable, Sequence

from lpmangle.store.source import Shape

# A full build-id (SHA-1, as --build-id=sha1 makes it): a suffix that needs no list, because a server can be asked for
# it.
BUILD_ID_DIGITS = 40
BUILD_ID = re.compile(rb"[0-9a-f]{%d}" % BUILD_ID_DIGITS)
# The default template's last character before {suffix}, which precedes every suffix that is not listed.
LEAD = b"_"
_HEX = re.compile(r"[0-9a-f]+")

# The characters of a symbol with the path of its file: outside ASCII, all letters of UTF-8.
_SYMBOL = rb"A-Za-z0-9_$.#/~@\-\x80-\xff"
# U+00A0 (no-break space), « », U+2000 to U+27FF (quotes, dashes, arrows, frames), U+3000 to U+303F, U+FF00 to U+FF0F,
# U+FEFF (byte-order mark)
_PUNCTUATION = rb"\xc2[\xa0\xab\xbb]|\xe2[\x80-\x9f][\x80-\xbf]|\xe3\x80[\x80-\xbf]|\xef\xbc[\x80-\x8f]|\xef\xbb\xbf"
# \n and \u0009 of JSON, \x09 and \011 of C, #011 of syslog, ESC[31m also without its ESC, %20 of URLs, ^I of cat -A
_ESCAPE = (
    rb"\\(?:[abefnrtv0]|u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[0-7]{3})|#[0-7]{3}|\[[0-9;]*[A-Za-z]|%[0-9A-Fa-f]{2}|\^[@-_]"
)
_BEGIN = re.compile(rb"(?:[^%b]|%b|%b|->|%%--|(?:\A|\n)[-+]+)\Z" % (_SYMBOL, _PUNCTUATION, _ESCAPE))
_BEGIN_BYTES = 24  # the longest of these, a colour
_ANY_END = rb"(?![0-9A-DF-Za-z_]|E(?!SC\[)|[.$]+[0-9A-Za-z_])"  # less shows a colour as ESC[31m
# Dots after a name end a sentence; objdump prints NAME-0x4.
_WORD_END = rb"(?:(?!\.*[%b])|(?=\.*(?:%b|#[0-7]{3}|->|-0x[0-9a-f]|ESC\[))|(?=-+(?![%b])))" % (
    _SYMBOL.replace(b".", b""),
    _PUNCTUATION,
    _SYMBOL,
)
ends_unique = re.compile(_ANY_END).match
ends_word = re.compile(_WORD_END).match

# A line break inside a build-id, after its `_` and any number of digits; mail programs leave a `=` there.
_BROKEN = rb"[0-9a-f=\r]{0,%d}\n" % BUILD_ID_DIGITS


def begins_word(text: bytes, at: int) -> bool:
    """Whether a symbol may begin at `text[at:]`, judging by what precedes it."""
    return at == 0 or _BEGIN.search(text, max(0, at - _BEGIN_BYTES), at) is not None


def pattern(shapes: Iterable[Shape]) -> bytes:
    """A regular expression for all anchors, always including `_` with a full build-id, or the first line of that.

    A literal at the beginning makes the search several times faster.
    """
    texts: dict[bytes, set[bytes]] = {LEAD: set()}
    digits: dict[bytes, set[int]] = {LEAD: {BUILD_ID_DIGITS}}
    goes_on = set()  # leads of templates that have something after the suffix
    for template, suffix in shapes:
        before, _, after = template.partition("{suffix}")
        lead = b"" if before.endswith("}") else before[-1:].encode()
        if _HEX.fullmatch(suffix):
            digits.setdefault(lead, set()).add(len(suffix))
        else:
            texts.setdefault(lead, set()).add(suffix.encode())
        if after:
            goes_on.add(lead)
    parts = []
    for lead in sorted(texts.keys() | digits.keys(), reverse=True):
        ends = {True: b"", False: b""} if lead in goes_on else {True: _ANY_END, False: _WORD_END}
        lengths = sorted(digits.get(lead, ()), reverse=True)
        inner = []
        if lengths and lead:
            inner.append(_digits([(length, ends[length == BUILD_ID_DIGITS]) for length in lengths], lead == LEAD))
        elif lengths:  # digits of the name may come before or after it: the whole run is one anchor
            inner.append(rb"(?<![0-9a-f])[0-9a-f]{%d,}+%b" % (lengths[-1], ends[True]))
        if texts.get(lead):
            inner.append(_trie(list(texts[lead])) + ends[False])
        parts.append(re.escape(lead) + (inner[0] if len(inner) == 1 else b"(?:%b)" % b"|".join(inner)))
    return b"|".join(parts)


def _digits(lengths: Sequence[tuple[int, bytes]], may_break: bool) -> bytes:
    """A regular expression for this many digits, and what must follow; or for those before a line break.

    Most words have no digit after the lead. They must fail at the first step: there are millions.
    """
    several = [b"[0-9a-f]{%d}%b" % (length - 1, end) for length, end in lengths]
    if may_break:
        return rb"[0-9a-f=\r\n](?:%b|%b|(?<=\n))" % (b"|".join(several), _BROKEN)
    return b"[0-9a-f](?:%b)" % b"|".join(several)


def _trie(words: Sequence[bytes]) -> bytes:
    """A regular expression for any of `words`, the longest first, that reads each byte of the text once."""
    if words == [b""]:
        return b""
    by_first: dict[bytes, list[bytes]] = {}
    for word in sorted(set(words)):
        by_first.setdefault(word[:1], []).append(word[1:])
    optional = by_first.pop(b"", None) is not None
    branches = [re.escape(first) + _trie(rest) for first, rest in by_first.items()]
    return b"(?:" + b"|".join(branches) + b")" + (b"?" if optional else b"")
