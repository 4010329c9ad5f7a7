"""Changes the names of the functions to replace in entries of .livepatch.funcs.

An entry's name is a pointer, filled in by a relocation, to a string in a loaded section that other entries, and code,
may share. So no string is changed: the new one is appended to that section's data, which moves to the end of the file,
and the entry's own relocation gets another addend. Xen places sections by size; only this relocation depends on where
in the section the new string is.
"""

from collections.abc import Mapping

from lpmangle import elf
from lpmangle.errors import ElfError, PayloadError, PlanError, ProofError
from lpmangle.xen.abi import FUNCS_SECTION, PAGE_SIZE
from lpmangle.xen.function_names import FunctionName
from lpmangle.xen.payload import Payload

# Sections that may grow. In the others, the size matters, or they are code.
_STRINGS = ".livepatch.strings"
_READ_ONLY = ".rodata"


def rename(payload: Payload, names: Mapping[int, bytes]) -> Payload:
    """The payload with `names` in these entries; each must be one that Xen looks up. Raises PlanError."""
    view = payload.elf
    out = bytearray(view.data)
    for number, entries in _by_section(payload, names).items():
        section = view.sections[number]
        _check_may_grow(section)
        offsets: dict[bytes, int] = {}
        out += bytes(-len(out) % _alignment(section))
        place = len(out)
        # The last string in the section may lack its NUL.
        out += bytes(view.section_data(section)) + b"\0"
        for entry in entries:
            _check_alone(view, entry)
            name = names[entry.entry]
            if name not in offsets:
                offsets[name] = len(out) - place
                out += name + b"\0"
            _put_addend(out, view, entry, offsets[name] - entry.base)
        view.put_place(out, number, place, len(out) - place)
    if not view.layout.is_64 and len(out) >= 1 << 32:
        raise PlanError("the new names of functions do not fit into the file")
    result = Payload(view.moved(bytes(out)))
    if (result.kinds, result.coincidences) != (payload.kinds, payload.coincidences):
        raise PlanError("has symbols or functions outside their sections: no section of it can grow")
    return result


def restore(
    out: bytearray, payload: Payload, addends: Mapping[int, int], sections: Mapping[int, tuple[int, int]]
) -> None:
    """Undo `rename` in `out`, a copy of the payload's file: addends by entry, sh_offset and sh_size by section number.

    Raises struct.error for numbers that do not fit, KeyError for an entry and IndexError for a section that does not
    exist.
    """
    view = payload.elf
    entries = {entry.entry: entry for entry in payload.looked_up}
    for number, addend in addends.items():
        _put_addend(out, view, entries[number], addend)
    for number, (offset, size) in sections.items():
        view.put_place(out, view.sections[number].number, offset, size)


def prove(payload: Payload, after: bytes, names: Mapping[int, bytes]) -> None:
    """Raise ProofError unless `after` is the file of `payload` with exactly the entries of `names` renamed.

    Only the input says which bytes may differ: the addends of those entries' name relocations, and sh_offset and
    sh_size of the sections that their strings are in. What was appended must be these sections: their old data, then
    only the strings in `names`; padding is zero. Read again, all names and kinds of symbols must be the same, except
    those in `names`.
    """
    view, address = payload.elf, payload.elf.layout.address
    before, masked = view.data, bytearray(after)
    if len(masked) < len(before):
        raise ProofError("the output is shorter than the input")
    for number, entries in _by_section(payload, names).items():
        for entry in entries:
            masked[entry.addend_at : entry.addend_at + address.size] = before[
                entry.addend_at : entry.addend_at + address.size
            ]
        at = view.place_at(number)
        place, size = (address.unpack_from(after, at + n * address.size)[0] for n in (0, 1))
        masked[at : at + 2 * address.size] = before[at : at + 2 * address.size]
        kept = bytes(view.section_data(view.sections[number])) + b"\0"
        strings = dict.fromkeys(names[entry.entry] for entry in entries)
        expected = kept + b"".join(name + b"\0" for name in strings)
        if place < len(before) or size != len(expected) or masked[place : place + size] != expected:
            raise ProofError(f"{view.sections[number]} is not the old one followed by the new names of functions")
        masked[place : place + size] = bytes(size)
    if masked[: len(before)] != before:
        at = next(at for at, (old, new) in enumerate(zip(before, masked, strict=False)) if old != new)
        raise ProofError(f"byte {at:#x} differs, which no new name of a function touches")
    if any(memoryview(masked)[len(before) :]):
        raise ProofError("bytes were appended that are not names of functions")
    wanted = [(entry.entry, names.get(entry.entry, entry.name)) for entry in payload.looked_up]
    try:
        result = Payload(elf.parse(after))
        found = [(entry.entry, entry.name) for entry in result.looked_up]
        same = (result.kinds, result.coincidences) == (payload.kinds, payload.coincidences)
    except (ElfError, PayloadError) as error:
        raise ProofError(f"the output is not sound: {error.message}") from None
    if found != wanted:
        raise ProofError("the entries of .livepatch.funcs do not have the names asked for")
    if not same:
        raise ProofError("another name of a function made another symbol a new one")


def _by_section(payload: Payload, names: Mapping[int, bytes]) -> dict[int, list[FunctionName]]:
    """The entries to rename by the section that their strings are in, in order."""
    found: dict[int, list[FunctionName]] = {}
    for entry in payload.looked_up:
        if entry.entry in names:
            found.setdefault(entry.section, []).append(entry)
    return dict(sorted(found.items()))


def _check_may_grow(section: elf.Section) -> None:
    named_well = section.name == _STRINGS or section.name.startswith(_READ_ONLY)
    if not named_well or section.flags & elf.SHF_EXECINSTR or section.entsize > 1:
        raise PlanError(
            f"the names of its functions are in {section}, which cannot grow",
            hint=f"livepatch-build puts them into {_STRINGS} or {_READ_ONLY}.str",
        )


def _check_alone(view: elf.Object, entry: FunctionName) -> None:
    """The addend that is changed must not also belong to another section."""
    end = entry.addend_at + view.layout.address.size
    owners = [one for one in view.sections[1:] if one.offset < end and entry.addend_at < one.end]
    if len(owners) > 1:
        raise PlanError(f"{owners[0]} and {owners[1]} overlap where {FUNCS_SECTION} has to change")


def _alignment(section: elf.Section) -> int:
    return section.addralign if 1 <= section.addralign <= PAGE_SIZE else 1


def _put_addend(out: bytearray, view: elf.Object, entry: FunctionName, addend: int) -> None:
    address = view.layout.address
    address.pack_into(out, entry.addend_at, addend % (1 << 8 * address.size))
