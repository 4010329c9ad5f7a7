"""Where a payload's sections are placed in the hypervisor's memory: livepatch.c:move_payload, calc_section."""

from lpmangle import elf
from lpmangle.system.light import Sequence
from lpmangle.system.records import TYPE_CHECKING, NamedTuple
from lpmangle.xen.abi import PAGE_SIZE

if TYPE_CHECKING:
    from typing import Protocol

    class SectionHeader(Protocol):
        """The fields of Elf_Shdr that matter."""

        @property
        def flags(self) -> int: ...
        @property
        def size(self) -> int: ...
        @property
        def addralign(self) -> int: ...


class Placement(NamedTuple):
    """Byte offsets in the payload's memory, by section number; None if a section is not loaded.

    `text_size` is the size of the code before padding, `total` that of all memory, in whole pages.
    """

    offsets: list[int | None]
    text_size: int
    total: int


def is_ignored(section: "SectionHeader", *, empty_sections_placed: bool) -> bool:
    """livepatch_elf.c:livepatch_elf_ignore_section; since April 2022 a section of size 0 is placed like any other."""
    return not section.flags & elf.SHF_ALLOC or not (section.size or empty_sections_placed)


def place(sections: "Sequence[SectionHeader]", mask: int, *, empty_sections_placed: bool) -> Placement:
    """Loaded sections in three regions, each on pages of its own: code, then writable, then read-only data.

    `mask` is the greatest size_t of the hypervisor's machine: sizes close to it wrap around, as they do in Xen.
    `sections[0]` is the null section.
    """
    text, data, read_only = range(3)
    sizes = [0, 0, 0]
    placed: list[tuple[int, int] | None] = [None]
    for section in sections[1:]:
        if is_ignored(section, empty_sections_placed=empty_sections_placed):
            placed.append(None)
            continue
        region = text if section.flags & elf.SHF_EXECINSTR else data if section.flags & elf.SHF_WRITE else read_only
        # ROUNDUP works with masks: an alignment of 0 gives offset 0, on top of the sections before.
        low = (section.addralign - 1) & mask
        start = (sizes[region] + low) & ~low & mask
        placed.append((region, start & 0xFFFFFFFF))  # load_offset is an unsigned int
        sizes[region] = (start + section.size) & mask
    data_at = _pages(sizes[text], mask)
    read_only_at = (data_at + _pages(sizes[data], mask)) & mask
    starts = (0, data_at, read_only_at)
    offsets = [None if where is None else starts[where[0]] + where[1] for where in placed]
    return Placement(offsets, sizes[text], _pages(read_only_at + sizes[read_only], mask))


def _pages(size: int, mask: int) -> int:
    return (size + PAGE_SIZE - 1) & -PAGE_SIZE & mask
