"""Names that mean the same thing and differ only in folders, numbers, or what compilers append."""

import re
from collections.abc import Iterable

from lpmangle.xen.abi import MAX_NAME

# What compilers append to the names of static variables, clones and split functions.
_COMPILERS = re.compile(rb"(\.(cold|part|isra|constprop|lto_priv|llvm|\d+))+$")


def compiler_made(name: bytes) -> bytes:
    """The end of a name that a compiler has appended: `.3` of `calls.3`; empty if there is none."""
    found = _COMPILERS.search(name[-MAX_NAME:])
    return found[0] if found else b""


class Lookalikes:
    """The names of a hypervisor, found by similar names."""

    def __init__(self, names: Iterable[bytes]) -> None:
        self._by_stem: dict[bytes, list[bytes]] = {}
        for name in names:
            self._by_stem.setdefault(_stem(name), []).append(name)

    def twins(self, name: bytes) -> list[bytes]:
        """Similar names of the same file, if both name one: `common/irq.c#once_.7` for `irq.c#once_.3`."""
        file = name.rpartition(b"#")[0]
        return [
            other
            for other in self._by_stem.get(_stem(name), [])
            if other != name and _same_file(file, other.rpartition(b"#")[0])
        ]

    def like(self, name: bytes) -> list[bytes]:
        """The same, then those of any file, local and global."""
        twins = self.twins(name)
        those = {name, *twins}
        return twins + [other for other in self._by_stem.get(_stem(name), []) if other not in those]


def _stem(name: bytes) -> bytes:
    name = name.rpartition(b"#")[2]
    return name.removesuffix(compiler_made(name))


def _same_file(one: bytes, other: bytes) -> bool:
    """livepatch-build and older Xen omit folders."""
    if not one or not other:
        return one == other
    return one == other or one.endswith(b"/" + other) or other.endswith(b"/" + one)
