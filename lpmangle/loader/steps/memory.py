"""The payload in the hypervisor's memory: the places of its sections, and the values of its symbols."""

from mmap import mmap

from lpmangle import elf
from lpmangle.elf import text
from lpmangle.errors import counted, listed
from lpmangle.loader.findings import Report
from lpmangle.loader.image import Header, Image
from lpmangle.loader.rules import Rule
from lpmangle.loader.state import State
from lpmangle.xen.abi import PAGE_SIZE
from lpmangle.xen.machines import ARM64, X86_64, Machine
from lpmangle.xen.placement import place

# The area for all payloads together: on x86 what the hypervisor leaves of 1 GiB. On Arm it has 2 MiB, but vm_alloc can
# use everything that the first page of its bitmap has bits for (xen/common/vmap.c). Only the size of one payload is
# compared with it.
_AREA_X86, _AREA_ARM = 1 << 30, (8 * PAGE_SIZE - 2) * PAGE_SIZE
_MOST_NAMES = 8


def place_sections(image: Image, state: State, report: Report) -> bool:
    """move_payload and calc_section: loaded sections in three regions, code, writable and read-only data.

    False if the sections do not fit into the memory that Xen allots for them.
    """
    offsets, image.text_size, total = place(
        image.headers, image.machine.mask, empty_sections_placed=state.profile.empty_sections_placed
    )
    for number, offset in enumerate(offsets):
        flags = image.headers[number].flags
        if offset is not None and flags & elf.SHF_WRITE and flags & elf.SHF_EXECINSTR:
            # Printed by debug hypervisors only ("Not supporting %s section!").
            report.refuse(Rule.SECTION_FLAGS, detail=f"{text(image.names[number])} (section {number})")
    if total > (_AREA_X86 if image.machine is X86_64 else _AREA_ARM):
        report.refuse(Rule.PAYLOAD_MEMORY, "Could not allocate memory for payload", counted(total, "byte"))
        return False
    image.base = state.free_address(total // PAGE_SIZE, image.machine)
    image.memory = memory = _zeros(total)
    for number, offset in enumerate(offsets):
        if offset is None:
            continue
        header = image.headers[number]
        if copied := _copied_of_negative(header, image.machine):
            content = image.data[header.offset : header.offset + copied]
            memory[offset : offset + len(content)] = content[: max(total - offset, 0)]
            continue
        if offset + header.size > total or image.wraps(number):
            size = counted(header.size, "byte")
            report.crash(Rule.SECTION_OVERRUN, f"{text(image.names[number])} (section {number}): {size}")
            return False
        if header.type != elf.SHT_NOBITS:  # already zero, and not to be touched: it may be a GiB
            memory[offset : offset + header.size] = image.file_content(number)
    image.addresses = [None if offset is None else image.base + offset for offset in offsets]
    return True


def _copied_of_negative(header: Header, machine: Machine) -> int:
    """How many bytes memcpy on Arm copies of a section whose size it takes for negative; 0 for any other section.

    Then the upload goes on (arm64/lib/memcpy.S, arm32/lib/memcpy.S).
    """
    if machine is X86_64 or header.type == elf.SHT_NOBITS or header.size <= machine.mask // 2:
        return 0
    if machine is ARM64:
        aligning = -header.offset % 16
        return aligning + (header.size - aligning & 63)
    return header.size & 3


def resolve_symbols(image: Image, state: State, report: Report) -> None:
    """livepatch_elf_resolve_symbols: a value for every symbol, whether anything refers to it or not."""
    count, mask, addresses = len(image.headers), image.machine.mask, image.addresses
    values = image.values = [0] * len(image.symbols)
    ignored_refused = state.profile.ignored_symbols_refused
    missing: list[bytes] = []
    for index, (name, shndx, value) in enumerate(image.symbols):
        if index == 0:
            continue
        if shndx == elf.SHN_UNDEF:
            found = state.find(name)
            if found is None:
                image.unresolved.add(index)
                # For what follows, any address of the hypervisor will do.
                found = image.base - 0x100000
                if state.xen or not name:
                    says = f"Unknown symbol: {text(name)}"
                    report.refuse(
                        Rule.UNKNOWN_SYMBOL, says, did_you_mean(name, state, report, Rule.UNKNOWN_SYMBOL), text(name)
                    )
                else:
                    missing.append(name)
            values[index] = found
        elif shndx < count:
            address = addresses[shndx]
            if address is None:
                values[index] = value
                if ignored_refused:
                    image.ignored.add(index)
            else:
                values[index] = (value + address) & mask
        elif shndx == elf.SHN_ABS:
            values[index] = value
        elif shndx == elf.SHN_COMMON:
            report.refuse(Rule.COMMON_SYMBOL, f"Unexpected common symbol: {text(name)}", symbol=text(name))
        else:
            rule = Rule.SYMBOL_SECTION if shndx < elf.SHN_LORESERVE else Rule.RESERVED_SYMBOL_SECTION
            report.refuse(rule, f"Out of bounds symbol section {shndx:#x}", symbol=text(name))
    if missing:
        shown = listed(list(map(text, missing[:_MOST_NAMES])), len(missing))
        report.not_checked(Rule.NO_HYPERVISOR_TABLE, f"undefined symbols: {shown}")


def did_you_mean(name: bytes, state: State, report: Report, rule: Rule) -> str:
    """Suggestions for a name that cannot be found; empty if nothing is similar, or nobody will see it."""
    like = state.like(name) if report.has_room(rule) else []
    return f"did you mean {' or '.join(map(text, like))}?" if like else ""


def _zeros(size: int) -> bytearray | mmap:
    """Memory of a payload. Large memory, which must be a section of zeros, is not allocated until it is written to."""
    return bytearray(size) if size < 16 << 20 else mmap(-1, size)
