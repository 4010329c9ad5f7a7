"""Sections that change how Xen runs a payload's code, and the entries in them (livepatch.c:prepare_payload)."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from lpmangle import elf
from lpmangle.review.identity import Extent, Places, digest
from lpmangle.xen.abi import HOOKS_PREFIX
from lpmangle.xen.machines import ALTERNATIVE_CALL_SIZE, MACHINES, Machine

_ALTERNATIVES = ".altinstructions"
_OTHERS = (".modinfo",)


class Special(NamedTuple):
    """Such a section: `size` in bytes, and the number of entries; None without entries, or if the size does not fit."""

    section: str
    size: int
    entries: int | None


class Hook(NamedTuple):
    """Hooks of one kind, such as `load`, and the original names of the functions that Xen calls."""

    kind: str
    functions: list[bytes]


def special_sections(view: elf.Object) -> list[Special]:
    """The special sections of a payload that are not empty, sorted by name."""
    found = [
        Special(section.name, section.size, section.size // size if size and section.size % size == 0 else None)
        for section, size in _sections(view)
    ]
    return sorted(found)


def hooks(places: Places) -> list[Hook]:
    """What Xen calls when the payload is applied or reverted, in the order of the sections."""
    found = []
    for section in places.view.sections[1:]:
        if section.name.startswith(HOOKS_PREFIX) and section.size:
            whole = Extent(section.number, 0, section.size, 0)
            relocations = places.relocations_in(section.number, 0, section.size)
            called = [places.reference(one, whole).target.shown for one in relocations]
            found.append(Hook(section.name.removeprefix(HOOKS_PREFIX), called))
    return found


def entries(places: Places) -> dict[str, Counter[bytes]]:
    """By section: its entries, each identified by content and targets, with the number of times it is there."""
    found = {}
    for section, size in _sections(places.view):
        if not size or section.size % size or not places.afford(section.size):
            size = section.size
        found[section.name] = Counter(
            _entry(places, section, start, size) for start in range(0, section.size if size else 0, size)
        )
    return found


def _sections(view: elf.Object) -> Iterator[tuple[elf.Section, int]]:
    """Each section with the size of its entries, 0 if it has none."""
    machine = MACHINES.get(view.machine)
    for section in view.sections[1:]:
        if section.flags & elf.SHF_ALLOC and section.size and (size := _entry_size(section.name, machine)) is not None:
            yield section, size


def _entry_size(name: str, machine: Machine | None) -> int | None:
    """None for a section that is not special."""
    if name in _OTHERS:
        return 0
    if name == _ALTERNATIVES:
        return machine.alternative if machine else 0
    if name == ".alt_call_sites":
        return ALTERNATIVE_CALL_SIZE
    if name == ".ex_table":
        return (machine and machine.exception) or 0
    if name.startswith(".bug_frames."):
        return machine.bug_frame if machine else 0
    return None


def _entry(places: Places, section: elf.Section, start: int, size: int) -> bytes:
    """The digest of one entry. Its fields are relative to themselves, so the symbols give their targets."""
    relocations = places.relocations_in(section.number, start, start + size)
    content = places.masked(section.number, start, start + size, relocations)
    keys: list[object] = []
    for relocation in relocations:
        at = relocation.r_offset - start
        target = places.target(relocation.r_sym, places.addend(relocation, section.number))
        key: object = target.key
        # struct alt_instr: orig_offset, repl_offset, feature, orig_len, repl_len. A replacement has no name.
        if section.name == _ALTERNATIVES and at == 4 and len(content) > 11:
            key = _replacement(places, relocation, section.number, content[11])
        keys.append((at, relocation.r_type, key))
    return digest(content, *keys)


def _replacement(places: Places, relocation: elf.Relocation, section: int, size: int) -> object:
    """The code that an alternative puts in place."""
    from lpmangle.review.code import code_at  # loads the loader, which `show` does not need

    symbol = places.view.symbol(relocation.r_sym)
    if not 0 < symbol.st_shndx < len(places.view.sections):
        return None
    start = symbol.st_value + places.addend(relocation, section)
    code = code_at(places, Extent(symbol.st_shndx, start, start + size, 0))
    return code and (code.content, [reference.key for reference in code.references])
