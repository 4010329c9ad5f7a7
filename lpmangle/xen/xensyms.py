"""The hypervisor's own symbol table: what undefined symbols resolve to, and what new symbols must not be named.

There are two equal sources: the `xen-syms` ELF that Xen's build leaves, and `/proc/xen/xensyms` in a dom0. The first
has the symbols as the linker saw them; from these, Xen's build makes the hypervisor's table (xen/tools/symbols.c, run
with --all-symbols if livepatching is configured), and so does `hypervisor_symbols`.
"""

from collections.abc import Iterator
from typing import NamedTuple

from lpmangle import elf
from lpmangle.errors import ElfError

# The hint for a file without names of a hypervisor.
HINT = (
    "take the xen-syms that the hypervisor's build leaves beside what is booted (Debian: xen-hypervisor-*-dbg), "
    "or a copy of /proc/xen/xensyms from a host that runs it"
)
_DOLLAR = ord("$")


class HypervisorSymbol(NamedTuple):
    address: int
    name: bytes


def hypervisor_symbols(data: bytes) -> list[HypervisorSymbol]:
    """The table of the hypervisor whose xen-syms is `data`, by address, as the loader searches it. Raises ElfError."""
    # symbols.c:compare_value prefers globals.
    found = sorted(kept_symbols(elf.parse(data, elf.ET_EXEC)), key=lambda symbol: symbol[:2])
    return [HypervisorSymbol(address, name) for address, _, name in found]


def kept_symbols(view: elf.Object) -> Iterator[tuple[int, bool, bytes]]:
    """Address, whether it is local, and name of every symbol of a xen-syms that the hypervisor's table keeps.

    A local symbol is named FILE#NAME after the last file symbol before it.
    """
    loaded = [bool(section.flags & elf.SHF_ALLOC) for section in view.sections]
    loaded[0] = False
    sections = [section.name.encode() for section in view.sections]
    data, names, find, count = view.data, view.strtab.offset, view.data.find, len(loaded)
    file = b""
    for st_name, st_info, _, st_shndx, st_value, _ in view.symbol_fields():
        kind = st_info & 15
        # symbols.c:read_symbol leaves out what is undefined, absolute, debugging or a mapping symbol, and
        # symbol_valid what changes from one pass of the build to the next.
        if kind == elf.STT_FILE:
            file = view.string(st_name)
        elif st_shndx < count and loaded[st_shndx]:
            if kind == elf.STT_SECTION:  # for these, nm prints the name of the section
                name = sections[st_shndx]
            else:
                start = names + st_name
                end = find(b"\0", start, start + elf.MAX_NAME_BYTES + 1)
                name = data[start:end] if end >= 0 else view.string(st_name)  # which refuses so long a name
            if not name or name[0] == _DOLLAR or b"_compiled." in name:
                continue
            if st_info >> 4 == elf.STB_LOCAL:
                yield st_value, True, file + b"#" + name if file else name
            else:
                yield st_value, False, name


def captured_symbols(text: bytes) -> list[HypervisorSymbol]:
    """The table in a copy of /proc/xen/xensyms: lines `ADDRESS TYPE NAME`. Raises ElfError for anything else."""
    symbols = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            address, _, name = line.split()
            symbols.append(HypervisorSymbol(int(address, 16), name))
        except ValueError:
            what = f"line {number} is not `ADDRESS TYPE NAME`, as in a copy of /proc/xen/xensyms"
            raise ElfError(what, hint=HINT) from None
    return symbols
