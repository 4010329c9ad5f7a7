"""Relocations: livepatch_elf.c:livepatch_elf_perform_relocs. Each machine has its own module."""

from collections.abc import Callable

from lpmangle import elf
from lpmangle.elf import text
from lpmangle.loader.findings import Report
from lpmangle.loader.image import Image
from lpmangle.loader.rules import Rule
from lpmangle.loader.steps import relocations_arm32, relocations_arm64, relocations_x86
from lpmangle.loader.steps.relocation_table import RelocationTable
from lpmangle.xen.machines import ARM64, X86_64
from lpmangle.xen.relocations import sign_extended

_RELOCATE: dict[int, Callable[[RelocationTable], None]] = {
    elf.EM_X86_64: relocations_x86.relocate,
    elf.EM_AARCH64: relocations_arm64.relocate,
    elf.EM_ARM: relocations_arm32.relocate,
}


def perform_relocations(image: Image, report: Report, only_into: int | None = None) -> None:
    """Every SHT_RELA and SHT_REL section, in index order; with `only_into` those of that section alone."""
    machine = image.machine
    for number in range(1, len(image.headers)):
        header = image.headers[number]
        if header.type in elf.COMPACT_RELOCATIONS and only_into is None:
            image.compact_relocations = True
            detail = f"{elf.COMPACT_RELOCATIONS[header.type]}: {text(image.names[number])}"
            report.warn(Rule.RELOC_COMPACT, detail)
        if header.type not in (elf.SHT_RELA, elf.SHT_REL):
            continue
        target, name = header.info, text(image.names[number])
        if only_into not in (None, target) or target >= len(image.headers):
            continue
        if target == 0:
            report.crash(Rule.RELOC_TARGET_ZERO, f"{name}: perform_relocs follows a NULL pointer")
            return
        if image.addresses[target] is None:
            continue
        if header.link != image.symtab:
            says = f"Relative link of {name} is incorrect ({sign_extended(header.link, 32)}, expected={image.symtab})"
            report.refuse(Rule.RELOC_LINK, says)
        elif header.size:
            entry = machine.layout.rela if header.type == elf.SHT_RELA else machine.layout.rel
            if header.entsize < entry.size or header.size % header.entsize:
                report.refuse(Rule.RELOC_HEADER, "Section relative header is corrupted", name)
            elif machine is X86_64 and header.type == elf.SHT_REL:
                report.refuse(Rule.RELOC_REL, "SHT_REL relocation unsupported", name)
            elif machine is ARM64 and header.type == elf.SHT_REL:
                report.refuse(Rule.RELOC_REL_ARM64, detail=name)
            else:
                _RELOCATE[machine.e_machine](RelocationTable(image, number, target, report))
                if image.wraps(number):  # what follows the table is read, too, until nothing is mapped
                    report.crash(Rule.SECTION_WRAPS, f"section {number}: Xen reads far outside the file")
                    return
