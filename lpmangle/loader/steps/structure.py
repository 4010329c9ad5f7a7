"""The payload as xen/common/livepatch_elf.c reads it: header, sections, names, symbols.

`elf.parse` is stricter than Xen and has other messages; here the order and the messages are Xen's. All fields are read
as little-endian and with the structures of the hypervisor's own class, whatever the file says.
"""

from lpmangle import elf
from lpmangle.elf import text
from lpmangle.errors import counted
from lpmangle.loader.findings import Report
from lpmangle.loader.image import Header, Image, hexadecimal
from lpmangle.loader.rules import Rule
from lpmangle.xen.abi import LIVEPATCH_MAX_SIZE, MAX_SECTIONS
from lpmangle.xen.machines import ARM32, X86_64

_MOST_MEMORY = 1 << 30  # more than xmalloc gives
_OSABI = (0, 9)  # ELFOSABI_SYSV, ELFOSABI_FREEBSD


def read_structure(image: Image, report: Report) -> bool:
    """livepatch_elf_load up to elf_get_sym. False if the rest cannot be read."""
    return (
        _read_header(image, report)
        and _read_sections(image, report)
        and _read_section_names(image, report)
        and _read_symbols(image, report)
    )


def _read_header(image: Image, report: Report) -> bool:
    data, machine = image.data, image.machine
    layout, size = machine.layout, len(image.data)
    if size < layout.ehdr_size:
        report.refuse(Rule.HEADER_TRUNCATED, "Section header is bigger than payload")
        return False
    if data[:4] != elf.ELFMAG:
        report.refuse(Rule.NOT_ELF, "Not an ELF payload")
        return False
    (e_type, e_machine, e_version, _, _, e_shoff, e_flags, _, _, e_phnum, e_shentsize, e_shnum, e_shstrndx) = (
        layout.ehdr.unpack_from(data, 16)
    )
    if (
        e_version != elf.EV_CURRENT
        or data[6] != elf.EV_CURRENT
        or data[8] != 0
        or data[7] not in _OSABI
        or e_type != elf.ET_REL
        or e_phnum != 0
    ):
        report.refuse(Rule.ELF_HEADER, "Invalid ELF payload")
        return False
    # Only x86 checks the byte order (xen/arch/*/livepatch.c:arch_livepatch_verify_elf).
    if (
        e_machine != machine.e_machine
        or data[4] != (elf.ELFCLASS64 if machine.is_64 else elf.ELFCLASS32)
        or (machine is X86_64 and data[5] != elf.ELFDATA2LSB)
    ):
        found = elf.EM_NAMES.get(e_machine, str(e_machine))
        report.refuse(Rule.ELF_MACHINE, "Unsupported ELF Machine type", f"{found}, the hypervisor is {machine.name}")
        return False
    if machine is ARM32 and e_flags & elf.EF_ARM_EABIMASK != elf.EF_ARM_EABI_VER5:
        report.refuse(Rule.ARM_EABI, f"Unsupported ELF EABI({e_flags:x})")
        return False
    if e_shstrndx == 0:
        report.refuse(Rule.NO_SECTION_NAMES, "Section name idx is undefined")
    elif e_shnum > MAX_SECTIONS:
        report.refuse(Rule.TOO_MANY_SECTIONS, f"Too many ({e_shnum}) sections")
    elif e_shstrndx >= e_shnum:
        says = f"Section name idx ({e_shstrndx}) is past end of sections ({e_shnum})"
        report.refuse(Rule.SECTION_NAMES_INDEX, says)
    elif e_shoff >= size:
        report.refuse(Rule.SECTION_TABLE_OFFSET, "Bogus e_shoff")
    elif e_shentsize < layout.shdr.size:
        says = f"Section header size is {e_shentsize}! Expected {layout.shdr.size}."
        report.refuse(Rule.SECTION_HEADER_SIZE, says)
    elif (size - e_shoff) // e_shentsize < e_shnum:
        report.refuse(Rule.SECTION_TABLE_TRUNCATED, "Section header size is corrupted")
    else:
        image.shstrndx = e_shstrndx
        if any(image.unaligned(e_shoff + number * e_shentsize) for number in range(1, e_shnum)):
            report.crash(Rule.UNALIGNED, f"section headers at {e_shoff:#x}")
            return False
        _read_headers(image, e_shoff, e_shentsize, e_shnum)
        return True
    return False


def _read_headers(image: Image, e_shoff: int, e_shentsize: int, e_shnum: int) -> None:
    # A larger e_shentsize is legal: the step from one header to the next.
    unpack, data = image.machine.layout.shdr.unpack_from, image.data
    image.headers = [Header._make(unpack(data, e_shoff + number * e_shentsize)) for number in range(e_shnum)]
    image.headers[0] = Header(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def _read_sections(image: Image, report: Report) -> bool:
    """elf_resolve_sections: each section's own bounds, then the symbol table's."""
    machine, size = image.machine, len(image.data)
    symtab, readable, count = 0, True, len(image.headers)
    for number in range(1, count):
        header = image.headers[number]
        if header.offset < machine.layout.ehdr_size:
            report.refuse(Rule.SECTION_IN_HEADER, f"Section [{number}] data at ELF header of payload")
            readable = False
        elif header.type != elf.SHT_NOBITS and (
            header.offset > size or (header.offset + header.size) & machine.mask > size
        ):
            report.refuse(Rule.SECTION_PAST_END, f"Section [{number}] data is past end of payload")
            readable = False
        align = header.addralign
        if align & (align - 1):
            says = f"Section [{number}] alignment ({hexadecimal(align)}) is not supported"
            report.refuse(Rule.SECTION_ALIGNMENT, says)
        elif align and header.addr % align:
            addr = hexadecimal(header.addr)
            says = f"Section [{number}] addr ({addr}) is not aligned properly ({hexadecimal(align)})"
            report.refuse(Rule.SECTION_ADDRESS, says)
        is_bss = header.type == elf.SHT_NOBITS and header.flags & (elf.SHF_WRITE | elf.SHF_ALLOC)
        if is_bss and header.size > LIVEPATCH_MAX_SIZE:
            report.refuse(Rule.SECTION_NOBITS_SIZE, detail=f"section {number}: {counted(header.size, 'byte')}")
            readable = False
        if header.type == elf.SHT_SYMTAB:
            if symtab:
                report.refuse(Rule.TWO_SYMBOL_TABLES, "Unsupported multiple symbol tables")
                return False
            symtab = number
            if header.link >= count:
                says = f"Symbol table idx ({header.link}) to strtab past end ({count})"
                report.refuse(Rule.SYMTAB_LINK, says)
                return False
    if not readable:
        return False
    if not symtab:
        report.refuse(Rule.NO_SYMBOL_TABLE, "No symbol table found")
        return False
    header = image.headers[symtab]
    if not header.size or header.entsize < machine.layout.sym.size or header.size % header.entsize:
        report.refuse(Rule.SYMTAB_HEADER, "Symbol table header is corrupted")
        return False
    if header.link == 0:
        report.crash(Rule.SYMTAB_LINK_ZERO, "elf_resolve_sections follows a NULL pointer")
        return False
    if not _is_string_table(image, header.link):
        report.refuse(Rule.STRING_TABLE, "String table section is corrupted")
        return False
    if not _is_string_table(image, image.shstrndx):
        report.refuse(Rule.SECTION_STRING_TABLE, "Section string table is corrupted")
        return False
    image.symtab = symtab
    return True


def _is_string_table(image: Image, number: int) -> bool:
    """elf_verify_strtab."""
    header = image.headers[number]
    if header.type != elf.SHT_STRTAB or not header.size:
        return False
    last = (header.offset + header.size - 1) & image.machine.mask
    return all(at < len(image.data) and image.data[at] == 0 for at in (header.offset, last))


def _read_section_names(image: Image, report: Report) -> bool:
    table, readable = image.headers[image.shstrndx], True
    image.names = [b""] * len(image.headers)
    for number in range(1, len(image.headers)):
        name = image.headers[number].name
        if name >= table.size:
            report.refuse(Rule.SECTION_NAME, f"Section {number} name is not within .shstrtab")
            readable = False
        elif table.offset + name >= len(image.data):  # the table's end wraps around
            report.crash(Rule.SECTION_WRAPS, f"section {number}: Xen reads its name far outside the file")
            return False
        else:
            image.names[number] = _string(image.data, table.offset + name)
    return readable


def _read_symbols(image: Image, report: Report) -> bool:
    """elf_get_sym. Symbol 0 is not read."""
    header, layout, data = image.headers[image.symtab], image.machine.layout, image.data
    table = image.headers[header.link]
    start, end, step = header.offset, header.offset + header.size, header.entsize
    if header.size // step * (24 if layout.is_64 else 12) > _MOST_MEMORY:  # sizeof(struct livepatch_elf_sym)
        report.refuse(Rule.SYMBOLS_MEMORY, "Could not allocate memory for symbols")
        return False
    if image.wraps(image.symtab):
        report.crash(Rule.SECTION_WRAPS, f"section {image.symtab}: Xen reads far outside the file")
        return False
    rows = (
        layout.sym.iter_unpack(data[start:end])
        if step == layout.sym.size
        else (layout.sym.unpack_from(data, at) for at in range(start, end, step))
    )
    names, names_size = table.offset, table.size
    append, readable = image.symbols.append, True
    for index, row in enumerate(rows):
        if layout.is_64:
            st_name, _, _, shndx, value, _ = row
        else:
            st_name, value, _, _, _, shndx = row
        if index == 0:
            append((b"", 0, 0))
            continue
        if image.unaligned(start + index * step):
            report.crash(Rule.UNALIGNED, f"symbol {index} at {start + index * step:#x}")
            return False
        if st_name >= names_size:
            report.refuse(Rule.SYMBOL_NAME, f"Symbol [{index}] name is not within .strtab")
            append((b"", 0, 0))
            readable = False
            continue
        at = names + st_name
        if at >= len(data):  # the string table's end wraps around
            report.crash(Rule.SECTION_WRAPS, f"symbol {index}: Xen reads its name far outside the file")
            return False
        name = _string(data, at)
        if not layout.is_64 and name[:2] == b"$t" and name[2:3] in (b"", b"."):
            report.refuse(Rule.THUMB_SYMBOL, f"Symbol '{text(name)}' should not be in payload", symbol=text(name))
        append((name, shndx, value))
    return readable


def _string(data: bytes, at: int) -> bytes:
    """The C string at `at`. A string longer than any name is cut: thousands may share one tail of a megabyte."""
    end = data.find(b"\0", at, at + elf.MAX_NAME_BYTES)
    return data[at : end if end >= 0 else at + elf.MAX_NAME_BYTES]
