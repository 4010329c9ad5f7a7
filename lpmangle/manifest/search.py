"""Looking symbols up in a manifest, in either direction, the way people have them: partial, cut, with an offset."""

import re
from collections.abc import Callable, Iterator
from fnmatch import translate

from lpmangle.manifest.read import FunctionName, Manifest, Reference, Symbol
from lpmangle.xen.payload import MAX_NAME

# A trace prints NAME+0xOFFSET/0xSIZE.
_OFFSET = re.compile(r"\+0x[0-9a-fA-F]+(/0x[0-9a-fA-F]+)?$")


def find(manifest: Manifest, pattern: str) -> Iterator[Symbol]:
    """The symbols that `pattern` names: exactly or as a glob, by the old or new name, with or without the file part.

    An old name of more than 126 bytes is found by the 126 that Xen keeps of it, too. A trailing `+0x1f/0x24`, as it
    stands in a trace, is ignored.
    """
    return filter(_matcher(pattern), manifest.symbols)


def find_taken(manifest: Manifest, pattern: str) -> Iterator[Reference | FunctionName]:
    """The same among what the payload takes from others: undefined symbols, functions to replace."""
    return filter(_matcher(pattern), [*manifest.references, *manifest.functions])


def _matcher(pattern: str) -> Callable[[Symbol | Reference | FunctionName], bool]:
    pattern = without_offset(pattern)
    matches = re.compile(translate(pattern)).match

    def fits(entry: Symbol | Reference | FunctionName) -> bool:
        names = {entry.original, entry.name, cut(entry.original)}
        names |= {name.rpartition("#")[2] for name in names}
        return pattern in names or any(map(matches, names))

    return fits


def without_offset(pattern: str) -> str:
    """A symbol as a trace prints it, without its `+0x1f/0x24`."""
    return _OFFSET.sub("", pattern)


def cut(name: str) -> str:
    """What Xen keeps of a name (build_symbol_table: strlcpy to KSYM_NAME_LEN)."""
    return name.encode()[:MAX_NAME].decode("utf-8", "ignore")


def file_of(symbol: Symbol) -> str:
    """The source file in a symbol's name; empty for a file that the patch added."""
    return symbol.original.rpartition("#")[0]
