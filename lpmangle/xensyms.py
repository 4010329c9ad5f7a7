"""The hypervisor's own symbol table: what undefined symbols resolve to, and what new symbols must not be named.

Two sources say the same: the `xen-syms` ELF that Xen's build leaves behind, and `/proc/xen/xensyms` in a dom0. The
first holds the symbols as the linker saw them; Xen's build makes the hypervisor's table of them (xen/tools/symbols.c,
run with --all-symbols where livepatching is configured), and so does `hypervisor_symbols`.
"""

from typing import NamedTuple

from lpmangle import elf
from lpmangle.errors import ElfError

STT_SECTION, STT_FILE = 3, 4


class HypervisorSymbol(NamedTuple):
    address: int
    name: bytes


def hypervisor_symbols(data: bytes) -> list[HypervisorSymbol]:
    """The table of the hypervisor whose xen-syms is `data`, by address, as the loader searches it.

    A local symbol is named FILE#NAME after the last file symbol before it. Raises ElfError.
    """
    view = elf.parse(data, elf.ET_EXEC)
    loaded = [bool(section.flags & elf.SHF_ALLOC) for section in view.sections]
    found: list[tuple[int, bool, bytes]] = []
    file = b""
    for st_name, st_info, _, st_shndx, st_value, _ in view.symbols():
        name, local = view.string(st_name), st_info >> 4 == elf.STB_LOCAL
        if st_info & 15 == STT_FILE:
            file = name
        # symbols.c:read_symbol leaves out what is undefined, absolute, debugging or a mapping symbol, and
        # symbol_valid what changes from one pass of the build to the next.
        elif (
            name
            and st_info & 15 != STT_SECTION
            and elf.SHN_UNDEF < st_shndx < elf.SHN_LORESERVE
            and loaded[st_shndx]
            and not name.startswith(b"$")
            and b"_compiled." not in name
        ):
            found.append((st_value, local, file + b"#" + name if local and file else name))
    found.sort(key=lambda symbol: symbol[:2])  # symbols.c:compare_value prefers globals
    return [HypervisorSymbol(address, name) for address, _, name in found]


def captured_symbols(text: bytes) -> list[HypervisorSymbol]:
    """The table in a copy of /proc/xen/xensyms: lines `ADDRESS TYPE NAME`. Raises ElfError for anything else."""
    symbols = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            address, _, name = line.split()
            symbols.append(HypervisorSymbol(int(address, 16), name))
        except ValueError:
            raise ElfError(f"line {number} is not `ADDRESS TYPE NAME`, as in a copy of /proc/xen/xensyms") from None
    return symbols
