"""The mark: a file says that it is mangled, and how. It is written, found and read only here.

It is a string in the file's string table that nothing refers to, so objcopy and strip drop it with the old table:

    lpmangle 2 SUFFIX --suffix buildid --template {symbol}_{suffix} --scope local [--against ID:BORROWED:CHECK]...
    [GLOBS]

SUFFIX is the suffix itself. For each mangled payload below there are its build-id, the number of names that were
borrowed from it, and a digest of its template and suffix. Version 1 is still read: it had no SUFFIX, `text:SUFFIX`
whatever had been typed, and GLOBS before the payloads; these had no CHECK, and were only those with borrowed names.
"""

from lpmangle import elf
from lpmangle.system.light import Iterable, Iterator
from lpmangle.system.records import NamedTuple

# Characters of --only and --keep that are written into the mark; if there are more, a digest is written.
MAX_GLOBS = 1000
CHECK_DIGITS = 12

_MANY = "and {} globs"  # as it is written, also for one

MAGIC = b"\0lpmangle "
_AGAINST = " --against "
_OPTIONS = r"--suffix (?P<typed>\S+) --template (?P<template>\S+) --scope (?P<scope>\S+)"
_VERSION_1 = rf"(?s){_OPTIONS}(?P<rest>.*)"
_VERSION_2 = rf"(?s)(?P<suffix>\S+) {_OPTIONS}(?P<below>(?:{_AGAINST}\S+)*)(?: (?P<globs>.*))?"
_BELOW = r"([0-9a-f]+):([0-9]{1,9})(?::([0-9a-f]*))?"


class Below(NamedTuple):
    """A mangled payload below: the number of names `borrowed` from it; `check` is `check_of`, empty in version 1."""

    build_id: str
    borrowed: int
    check: str


class Mark(NamedTuple):
    """`typed` is the suffix as it was typed, `suffix` its value; `globs` are --only and --keep as one text.

    For a mark that a newer lpmangle has written, only `globs` is filled in, with the whole text.
    """

    suffix: str
    typed: str
    template: str
    scope: str
    globs: str = ""
    below: tuple[Below, ...] = ()
    version: int = 2

    def same_way(self, other: "Mark") -> bool:
        """Whether both mean the same names, however the suffix was typed and whatever is below."""
        mine, theirs = ((one.suffix, one.template, one.scope, one.globs) for one in (self, other))
        return mine == theirs

    @property
    def words(self) -> str:
        """The options as they were typed, without those that change nothing."""
        globs = self.globs.replace(f"{_MANY.format(1)}, sha256 ", "and 1 glob, sha256 ")
        return " ".join(filter(None, (self._options, *(f"--against {one.build_id}" for one in self.below), globs)))

    @property
    def tells_originals(self) -> bool:
        """Whether the original can be derived from a new name that was not shortened."""
        return self.template.count("{symbol}") == 1

    def original(self, name: bytes) -> bytes:
        """The original of a name, if it can be derived; not of a shortened one."""
        if not self.tells_originals:
            return name
        before, after = (
            part.replace("{suffix}", self.suffix).encode("utf-8", "surrogateescape")
            for part in self.template.split("{symbol}")
        )
        fits = name.startswith(before) and name.endswith(after)
        return name[len(before) : len(name) - len(after)] if fits else name

    def encode(self) -> bytes:
        """The text in the string table, without the NULs around it."""
        below = [f"--against {one.build_id}:{one.borrowed}:{one.check}" for one in self.below]
        words = " ".join(filter(None, (self.suffix, self._options, *below, self.globs)))
        return MAGIC[1:] + b"2 " + words.encode("utf-8", "surrogateescape")

    @property
    def _options(self) -> str:
        return self.suffix and f"--suffix {self.typed} --template {self.template} --scope {self.scope}"


def find(view: elf.Object) -> Mark | None:
    """The mark of a file that lpmangle has mangled; None for any other."""
    return _find(view.data, view.strtab.offset, view.strtab.end)


def find_in(table: bytes) -> Mark | None:
    """The same in the content of a file's string table."""
    return _find(table, 0, len(table))


def _find(data: bytes, start: int, end: int) -> Mark | None:
    """The last mark between two offsets: a payload that was mangled again keeps its old strings."""
    while (at := data.rfind(MAGIC, start, end)) >= 0:
        # Not a name: with many payloads below, it is longer than any name.
        stop = data.find(b"\0", at + 1)
        text = data[at + len(MAGIC) : stop if stop >= 0 else len(data)].decode("utf-8", "surrogateescape")
        version, blank, words = text.partition(" ")
        if blank and len(version) < 10 and version.isascii() and version.isdigit():
            return _read(version, words)
        end = at + 1
    return None


def _read(version: str, words: str) -> Mark:
    import re  # slow to load, and a payload that has not been mangled has no mark

    if version == "1" and (found := re.fullmatch(_VERSION_1, words)):
        # A glob may contain anything, but at the end there are only payloads.
        rest, *several = found["rest"].split(_AGAINST)
        below: list[Below] = []
        while several and (one := re.fullmatch(_BELOW, several[-1])):
            below.insert(0, Below(one[1], int(one[2]), ""))
            several.pop()
        globs = _AGAINST.join([rest, *several]).removeprefix(" ")
        suffix = found["typed"].removeprefix("text:")
        return Mark(suffix, found["typed"], found["template"], found["scope"], globs, tuple(below), 1)
    if version == "2" and (found := re.fullmatch(_VERSION_2, words)):
        below = list(_below(found["below"]))
        options = found["suffix"], found["typed"], found["template"], found["scope"], found["globs"] or ""
        return Mark(*options, tuple(below))
    return Mark("", "", "", "", words, (), int(version))


def _below(words: str) -> Iterator[Below]:
    import re

    for word in words.split(_AGAINST)[1:]:
        if one := re.fullmatch(_BELOW, word):
            yield Below(one[1], int(one[2]), one[3] or "")


def globs_text(only: Iterable[str], keep: Iterable[str]) -> str:
    """--only and --keep in one text, each glob once; their order does not matter."""
    globs = [f"--only {glob}" for glob in sorted(set(only))] + [f"--keep {glob}" for glob in sorted(set(keep))]
    if sum(map(len, globs)) <= MAX_GLOBS:
        return " ".join(globs)
    return f"{_MANY.format(len(globs))}, sha256 {_digest(' '.join(globs))}"


def check_of(template: str, suffix: str) -> str:
    """The digest of how a payload below was mangled."""
    return _digest(f"{template}\0{suffix}")[:CHECK_DIGITS]


def _digest(text: str) -> str:
    import hashlib  # slow to load, and few marks have a digest

    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
