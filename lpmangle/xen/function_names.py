"""The names in .livepatch.funcs by which Xen finds the functions to replace."""

from collections.abc import Sequence

from lpmangle import elf
from lpmangle.errors import PayloadError
from lpmangle.system.records import NamedTuple
from lpmangle.xen.abi import ABSOLUTE_RELOCATION, FUNCS_SECTION


class FunctionName(NamedTuple):
    """The name of entry number `entry`: the C string at `offset` of section number `section`.

    `addend_at` is where the file has the relocation's addend, whose value is `addend`; `base` is st_value of the symbol
    that it is added to.
    """

    entry: int
    name: bytes
    section: int
    offset: int
    addend_at: int
    addend: int
    base: int


def looked_up(view: elf.Object, section: elf.Section, starts: Sequence[int]) -> list[FunctionName]:
    """The entries with old_addr 0, which Xen looks up by name (livepatch.c:resolve_old_address), in order.

    `section` is .livepatch.funcs, whose entries begin at `starts`. Entries whose name is not known from the file alone
    are left out. Raises PayloadError, ElfError.
    """
    pointer = view.layout.address.size
    entry_size = section.size // len(starts)
    of_entry: dict[int, list[tuple[int, elf.Relocation]]] = {}
    for relocation in view.relocations(section):
        number, offset = divmod(relocation.r_offset, entry_size)
        of_entry.setdefault(number, []).append((offset, relocation))
    found = []
    for number, start in enumerate(starts):
        # name, new_addr, old_addr: a relocation that begins in a field, or reaches into it, fills it.
        (old_address,) = view.layout.address.unpack_from(view.section_data(section), start + 2 * pointer)
        fields = of_entry.get(number, [])
        naming = [relocation for offset, relocation in fields if offset < pointer]
        if old_address or any(pointer < offset < 3 * pointer for offset, _ in fields) or len(naming) != 1:
            continue
        if name := _read(view, number, naming[0], start):
            found.append(name)
    return found


def _read(view: elf.Object, entry: int, relocation: elf.Relocation, start: int) -> FunctionName | None:
    """The string that a relocation of an entry's first field leads to."""
    address = view.layout.address
    symbol = view.symbol(relocation.r_sym)
    if relocation.r_offset != start or relocation.r_type != ABSOLUTE_RELOCATION[view.machine]:
        return None
    if not 0 < symbol.st_shndx < len(view.sections):
        return None
    addend = relocation.r_addend
    if addend is None:
        (addend,) = address.unpack_from(view.data, relocation.addend_at)
    section = view.sections[symbol.st_shndx]
    offset = (symbol.st_value + addend) % (1 << 8 * address.size)
    if not section.flags & elf.SHF_ALLOC or section.type == elf.SHT_NOBITS:
        return None
    end = view.data.find(b"\0", section.offset + offset, section.end)
    if end < 0:
        raise PayloadError(f"{FUNCS_SECTION}: the name of entry {entry} is not a string inside {section}")
    name = view.data[section.offset + offset : end]
    return FunctionName(entry, name, section.number, offset, relocation.addend_at, addend, symbol.st_value)
