"""From bytes to the view: every bound is checked here, once, before it is used."""

from lpmangle.elf.other import ONLY, linux_module, not_elf, not_relocatable
from lpmangle.elf.view import (
    ELFCLASS32,
    ELFCLASS64,
    ELFDATA2LSB,
    ELFDATA2MSB,
    ELFMAG,
    ET_NAMES,
    ET_REL,
    EV_CURRENT,
    SHF_ALLOC,
    SHN_ABS,
    SHN_COMMON,
    SHT_GROUP,
    SHT_NOBITS,
    SHT_NULL,
    SHT_REL,
    SHT_RELA,
    SHT_STRTAB,
    SHT_SYMTAB,
    Layout,
    Object,
    Section,
    string_at,
    text,
)
from lpmangle.errors import ElfError, counted
from lpmangle.system.light import suppress


def parse(data: bytes, accept: int = ET_REL) -> Object:
    """Check `data` and return the view of it.

    Raises ElfError for anything that is not a sound file of type `accept` (ET_REL: a payload) with one symbol table.
    """
    view = parse_sections(data, accept)
    _find_symbol_table(view)
    _check_overlaps(view)
    _check_symbols(view)
    return view


def parse_sections(data: bytes, accept: int = ET_REL) -> Object:
    """The same for a file that may have no symbol table: the view has sections only.

    One example is the .debug file that eu-strip -f makes of a payload: sections that are not in it have type
    SHT_NOBITS.
    """
    if data[:4] != ELFMAG:
        raise ElfError(not_elf(data) if accept == ET_REL else "not an ELF file")
    if len(data) < 16:
        raise ElfError("truncated inside the ELF header")
    ei_class, ei_data, ei_version = data[4:7]
    if ei_class not in (ELFCLASS32, ELFCLASS64):
        raise ElfError(f"ELF class {ei_class} is neither 32-bit (1) nor 64-bit (2)")
    if ei_data not in (ELFDATA2LSB, ELFDATA2MSB):
        raise ElfError(f"ELF byte order {ei_data} is neither little (1) nor big (2) endian")
    layout = Layout(ei_class == ELFCLASS64, ei_data == ELFDATA2MSB)
    if len(data) < layout.ehdr_size:
        raise ElfError("truncated inside the ELF header")
    (e_type, machine, e_version, _, _, e_shoff, _, _, _, _, e_shentsize, e_shnum, e_shstrndx) = layout.ehdr.unpack_from(
        data, 16
    )
    if ei_version != EV_CURRENT or e_version != EV_CURRENT:
        raise ElfError(f"ELF version {e_version} (ident: {ei_version}) is not 1")
    view = Object(data, layout, machine, e_shoff)
    if e_type != accept == ET_REL:
        with suppress(ElfError):
            _read_sections(view, e_shentsize, e_shnum, e_shstrndx)
        raise ElfError(not_relocatable(view, e_type))
    if e_type != accept:
        raise ElfError(
            f"is {ET_NAMES.get(e_type, f'of ELF type {e_type}')}, not {ET_NAMES[accept]}",
            hint="a payload is the relocatable object (ET_REL) that livepatch-build writes, xen-syms an executable",
        )
    _read_sections(view, e_shentsize, e_shnum, e_shstrndx)
    return view


def other_than_payload(data: bytes) -> str:
    """What a file that was given by mistake is; empty if that is not known, or if it is a payload."""
    try:
        return linux_module(parse_sections(data))
    except ElfError as error:
        return error.message if error.message.endswith(ONLY) else ""


def is_relocatable(start: bytes) -> bool:
    """Whether a file that begins with `start` says that it is a relocatable ELF file."""
    return start[:4] == ELFMAG and start[16:18] in (b"\1\0", b"\0\1")  # e_type in either byte order


def _read_sections(view: Object, e_shentsize: int, e_shnum: int, e_shstrndx: int) -> None:
    data, layout, e_shoff = view.data, view.layout, view.e_shoff
    if e_shoff == 0:
        raise ElfError("has no section header table")
    if e_shentsize != layout.shdr.size:
        raise ElfError(f"section headers have {counted(e_shentsize, 'byte')} each, expected {layout.shdr.size}")
    if not layout.ehdr_size <= e_shoff <= len(data) - layout.shdr.size:
        raise ElfError(f"section header table at {e_shoff:#x} is outside the file ({len(data):#x} bytes)")
    if e_shnum == 0:  # gABI: the number of sections is in sh_size of section 0
        e_shnum = layout.shdr.unpack_from(data, e_shoff)[5]
        if e_shnum == 0:
            raise ElfError("has no sections")
    table_end = e_shoff + e_shnum * layout.shdr.size
    if table_end > len(data):
        raise ElfError(f"truncated: the section header table ends at {table_end:#x}, the file at {len(data):#x}")
    if not 0 < e_shstrndx < e_shnum:
        raise ElfError(f"e_shstrndx {e_shstrndx} is not one of the sections 1 to {e_shnum - 1}")

    headers = list(layout.shdr.iter_unpack(memoryview(data)[e_shoff:table_end]))
    _, names_type, _, _, names_offset, names_size, *_ = headers[e_shstrndx]
    if names_type != SHT_STRTAB:
        raise ElfError(f"section {e_shstrndx}, which should hold the section names, is not a string table")
    if names_offset + names_size > len(data):
        raise ElfError(f"section {e_shstrndx} (section names) is outside the file")
    names = data[names_offset : names_offset + names_size]
    if not names or names[-1]:
        raise ElfError(f"section {e_shstrndx} (section names) is not terminated by a NUL")

    for index, header in enumerate(headers):
        sh_name, sh_type, flags, _, offset, size, link, info, addralign, entsize = header
        if sh_name >= len(names):
            raise ElfError(f"section {index}: its name is outside the section name table")
        name = text(string_at(names, sh_name))
        section = Section(index, name, sh_type, flags, offset, size, link, info, addralign, entsize)
        view.sections.append(section)
        if index == e_shstrndx:
            view.section_names = section
        if index == 0:
            if sh_type != SHT_NULL:
                raise ElfError("section 0 is not the null section")
            continue
        if link >= e_shnum:
            raise ElfError(f"{section}: sh_link {link} is not one of the {e_shnum} sections")
        if sh_type in (SHT_REL, SHT_RELA) and info >= e_shnum:
            raise ElfError(f"{section}: sh_info {info} is not one of the {e_shnum} sections")
        if sh_type in (SHT_NULL, SHT_NOBITS):
            continue
        if offset + size > len(data):
            raise ElfError(
                f"{section}: its data ({offset:#x} + {size:#x}) is outside the file ({len(data):#x} bytes)",
                hint="the file is truncated or damaged; build or copy it again",
            )
        if offset < layout.ehdr_size:
            raise ElfError(f"{section}: its data at {offset:#x} is inside the ELF header")


def _find_symbol_table(view: Object) -> None:
    tables = [s for s in view.sections if s.type == SHT_SYMTAB]
    if not tables:
        if what := linux_module(view):
            raise ElfError(what)
        raise ElfError("has no symbol table", hint="it was stripped; take the file as livepatch-build left it")
    if len(tables) > 1:
        raise ElfError(f"has {len(tables)} symbol tables; Xen accepts exactly one")
    view.symtab = symtab = tables[0]
    entry = view.layout.sym.size
    if symtab.entsize != entry:
        raise ElfError(f"{symtab}: symbols have {counted(symtab.entsize, 'byte')} each, expected {entry}")
    if symtab.size == 0 or symtab.size % entry:
        raise ElfError(
            f"{symtab}: {counted(symtab.size, 'byte is', 'bytes are')} not a whole number of symbols of {entry} bytes"
        )
    if symtab.info > view.symbol_count:
        raise ElfError(f"{symtab}: sh_info {symtab.info} is more than its {counted(view.symbol_count, 'symbol')}")

    view.strtab = strtab = view.sections[symtab.link]
    if strtab.number == 0:
        raise ElfError(f"{symtab}: has no string table")
    if strtab.type != SHT_STRTAB:
        raise ElfError(f"{symtab}: its string table, {strtab}, is not of type SHT_STRTAB")
    for section in (symtab, strtab):
        if section.flags & SHF_ALLOC:
            raise ElfError(
                f"{section}: would be loaded (SHF_ALLOC): its names cannot change without changing the payload"
            )
    # livepatch_elf.c:elf_verify_strtab
    if strtab.size == 0 or view.data[strtab.offset] or view.data[strtab.end - 1]:
        raise ElfError(f"{strtab}: the string table does not begin and end with a NUL")
    for section in view.sections:
        if section.type == SHT_GROUP and section.link == symtab.number and section.info >= view.symbol_count:
            raise ElfError(
                f"{section}: sh_info {section.info} is not one of the {counted(view.symbol_count, 'symbol')}"
            )


def _check_overlaps(view: Object) -> None:
    """The symbols and section headers, which lpmangle edits, must not overlap anything else."""
    end_of_headers = view.section_header_offset(len(view.sections))
    for what, start, end, owner in (
        ("the section header table", view.e_shoff, end_of_headers, None),
        ("the symbol table", view.symtab.offset, view.symtab.end, view.symtab),
    ):
        for section in view.sections[1:]:
            empty = section.end == section.offset
            if section is not owner and not empty and section.offset < end and start < section.end:
                raise ElfError(f"{section}: its data overlaps {what}")


def _check_symbols(view: Object) -> None:
    names_size, st_names = view.strtab.size, view.symbol_column("st_name")
    if max(st_names) >= names_size:
        index, st_name = next(pair for pair in enumerate(st_names) if pair[1] >= names_size)
        raise ElfError(f"symbol {index}: its name is outside the string table ({st_name:#x} of {names_size:#x})")
    # livepatch_elf.c:livepatch_elf_resolve_symbols: "Out of bounds symbol section"
    count, st_shndx = len(view.sections), view.symbol_column("st_shndx")
    wrong = {number for number in set(st_shndx) if number >= count and number not in (SHN_ABS, SHN_COMMON)}
    if wrong:
        index, number = next(pair for pair in enumerate(st_shndx) if pair[1] in wrong)
        raise ElfError(f"symbol {index}: st_shndx {number:#x} is not one of the {count} sections")
