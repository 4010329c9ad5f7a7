"""Asks LIEF, which shares no code with us, the same question: do only names differ?

It compares all fields of all symbols except the names, and all section headers except the string table's place. LIEF
gets only bytes that our strict reader has accepted, reads only sections and symbols, and never writes, because it
corrupts relocatable files.
"""

import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

from lpmangle import elf
from lpmangle.manifest import embed
from lpmangle.manifest.read import Manifest
from lpmangle.xen.abi import SIGNATURE_SECTION

Tables = dict[str, list[tuple[Any, ...]]]


def on_names(before: bytes, after: bytes, found: Manifest) -> Iterator[str]:
    """What differs between the two files according to LIEF, except the new names of the manifest."""
    old, new = tables(before), tables(after)
    if old is None or new is None:
        yield "LIEF cannot read it"
        return
    names = {symbol.index: symbol.name for symbol in found.named}
    moved = {place.section for place in found.string_sections}
    if names or moved:
        moved.add(found.string_table.section)
    if len(old["symbols"]) != len(new["symbols"]) or len(old["sections"]) != len(new["sections"]):
        yield "LIEF: the number of symbols or sections differs"
        return
    for index, (was, is_now) in enumerate(zip(old["symbols"], new["symbols"], strict=True)):
        expected = (names.get(index, was[0]), *was[1:])
        if is_now != expected:
            yield f"LIEF: symbol {index} is {is_now}, expected {expected}"
    for index, (was, is_now) in enumerate(zip(old["sections"], new["sections"], strict=True)):
        if index in moved:
            was, is_now = was[:2], is_now[:2]
        if is_now != was:
            yield f"LIEF: section {index} is {is_now}, was {was}"


def on_embedding(bare: elf.Object, view: elf.Object) -> Iterator[str]:
    """What differs between a payload without its manifest and with it according to LIEF, except that section."""
    old, new = tables(bare.data), tables(view.data)
    if old is None or new is None:
        yield "LIEF cannot read it with the manifest embedded"
        return
    if old["symbols"] != new["symbols"]:
        yield "LIEF: symbols differ with the manifest embedded"
    if len(new["sections"]) != len(old["sections"]) + 1:
        yield "LIEF: the number of sections differs with the manifest embedded"
        return
    *sections, last = new["sections"]
    for index, (was, is_now) in enumerate(zip(old["sections"], sections, strict=True)):
        if index == bare.section_names.number:
            was, is_now = was[:2], is_now[:2]
        if is_now != was:
            yield f"LIEF: section {index} is {is_now} with the manifest embedded, was {was}"
    if last[0] != embed.SECTION:
        yield f"LIEF: the last section is {last[0]}, not {embed.SECTION}"


def on_laying_out(before: bytes, after: bytes) -> Iterator[str]:
    """What differs after rewriting according to LIEF, except places, tables and signature."""
    old, new = tables(before), tables(after)
    if old is None or new is None:
        yield "LIEF cannot read it as it was laid out anew"
        return
    for what in ("symbols", "sections"):
        was, is_now = (Counter(_meaning(one)[what]) for one in (old, new))
        for one in (was - is_now) + (is_now - was):
            yield f"LIEF: of {what} that are {one} there are {is_now[one]}, there were {was[one]}"


def _meaning(found: Tables) -> Tables:
    """Symbols with names for the numbers of sections; sections without places and links."""
    names = [section[0] for section in found["sections"]]
    symbols = []
    for name, value, size, kind, binding, other, shndx in found["symbols"]:
        # An undefined symbol is found by name; GNU objcopy makes LOCAL ones GLOBAL.
        bound = "any" if not shndx else binding
        symbols.append((name, value, size, kind, bound, other, names[shndx] if shndx < len(names) else shndx))
    # GNU objcopy sets SHF_INFO_LINK where it belongs.
    relocations = (elf.SHT_REL, elf.SHT_RELA)
    sections = [
        (name, kind, size, flags & ~(elf.SHF_INFO_LINK * (kind in relocations)), alignment, entry_size)
        for name, kind, _, size, flags, _, _, alignment, entry_size in found["sections"]
        if name not in (embed.SECTION, SIGNATURE_SECTION) and kind not in (elf.SHT_SYMTAB, elf.SHT_STRTAB)
    ]
    return {"symbols": symbols, "sections": sections}


def tables(data: bytes) -> Tables | None:
    """Symbols and sections as LIEF reads them; None if it cannot."""
    import lief  # 30 times the start of Python

    config = lief.ELF.ParserConfig()
    config.parse_relocations = False
    config.parse_dyn_symbols = False
    config.parse_symbol_versions = False
    config.parse_notes = False
    config.parse_overlay = False
    config.parse_symtab_symbols = True
    lief.logging.disable()
    with warnings.catch_warnings():  # of types that it has no name for
        warnings.simplefilter("ignore")
        return _tables(lief.ELF.parse(data, config))


def _tables(binary: Any) -> Tables | None:
    if binary is None or not binary.sections:  # a machine that it knows only in the other byte order
        return None
    return {
        "symbols": [
            (s.name, int(s.value), s.size, int(s.type), int(s.binding), s.other, s.shndx) for s in binary.symtab_symbols
        ],
        "sections": [
            (
                s.name,
                int(s.type),
                s.file_offset,
                s.size,
                s.flags,
                s.link,
                s.information,
                s.alignment,
                s.entry_size,
            )
            for s in binary.sections
        ],
    }
