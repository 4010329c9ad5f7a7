"""Looks symbols up in a manifest, in either direction, as people have them: partial, cut, with an offset."""

import re
from collections.abc import Callable, Iterator
from fnmatch import translate
from typing import NamedTuple

from lpmangle.manifest.read import FunctionNameRecord, Manifest, Name, ReferenceRecord, SymbolRecord
from lpmangle.xen.abi import MAX_NAME

# NAME+0xOFFSET/0xSIZE [PAYLOAD] in a trace of Xen, <NAME+OFFSET> in a listing of gdb, <NAME-0xOFFSET> in one of
# objdump, NAME + OFFSET in section SECTION of FILE from gdb's `info symbol`.
_PASTED = re.compile(
    r"(?P<angle><)?(?P<name>.*?)"
    r"(?:\s*(?:[+-]\s*0x[0-9a-fA-F]+|\+\s*[0-9]+)(?:/0x[0-9a-fA-F]+)?)?"
    r"(?(angle)>:?)(?: in section \S+(?: of .*)?)?(?:\s+\[(?P<payload>[^][]*)\])?",
    re.DOTALL,
)


class Sought(NamedTuple):
    """What to search for: a name or pattern, and the payload that a trace named with it."""

    pattern: str
    payload: str | None


def wanted(word: str) -> Sought:
    """What `word` means, which may be copied from a trace or a debugger: with blanks, an offset, the payload."""
    found = _PASTED.fullmatch(word.strip())
    assert found is not None  # all parts of it are optional
    return Sought(found["name"], found["payload"])


def find(manifest: Manifest, pattern: str) -> Iterator[SymbolRecord]:
    """The symbols that match `pattern`: exactly or as a glob, by old or new name, with or without the file part.

    An old name of more than 126 bytes is also found by the 126 bytes that Xen keeps. What is around the name in a trace
    is ignored (`wanted`).
    """
    return filter(matcher(pattern), manifest.symbols)


def find_borrowed(manifest: Manifest, pattern: str) -> Iterator[ReferenceRecord | FunctionNameRecord]:
    """The same among the names that the payload borrows: undefined symbols, functions to replace."""
    return filter(matcher(pattern), manifest.borrowed)


def matcher(pattern: str) -> Callable[[SymbolRecord | ReferenceRecord | FunctionNameRecord | Name], bool]:
    """What says whether `pattern` names a symbol."""
    pattern = wanted(pattern).pattern
    matches = re.compile(translate(pattern)).match

    def fits(entry: SymbolRecord | ReferenceRecord | FunctionNameRecord | Name) -> bool:
        names = {entry.original, entry.name, cut(entry.original)}
        names |= {name.rpartition("#")[2] for name in names}
        return pattern in names or any(map(matches, names))

    return fits


def cut(name: str) -> str:
    """What Xen keeps of a name (build_symbol_table: strlcpy to KSYM_NAME_LEN)."""
    return name.encode()[:MAX_NAME].decode("utf-8", "ignore")


def file_of(symbol: SymbolRecord) -> str:
    """The source file in a symbol's name; empty for a file that the patch added."""
    return symbol.original.rpartition("#")[0]
