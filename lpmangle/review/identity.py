"""What a place in a payload *is*, whatever its name and address.

Two builds of the same source put things at different addresses, number static variables differently, merge strings
differently, and refer to a place by a symbol or by its section. What does not change: the hypervisor's names, the
original names of functions and variables, and the content of what is never written. Identities consist of these, and
two of them are equal if they mean the same thing.

- A function that the payload replaces counts as the hypervisor's function of that name: a call means the same, replaced
  or not (livepatch.c puts a jump at its beginning).
- A function or a variable of the payload is identified by its original name. A number that a compiler has appended to a
  variable's name is removed, unless another variable has the name without it.
- Constants and strings are identified by their content, including relocations, to a depth of MAX_DEPTH.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

from lpmangle import elf
from lpmangle.errors import ElfError
from lpmangle.review.subject import Subject
from lpmangle.system.files import sha256
from lpmangle.xen.relocations import FIELDS, R_ARM_CALL, R_ARM_JUMP24, Field, arm32_addend
from lpmangle.xen.symbols import Kind
from lpmangle.xen.variables import holds_state

# Kinds of targets.
HYPERVISOR, OWN, CONSTANT, STRING, ABSOLUTE, PLACE = "hypervisor", "payload", "constant", "string", "absolute", "place"

MAX_DEPTH = 8
# Of anonymous data, whose end is not known, only this much is read.
MAX_ANONYMOUS = 4096
MAX_ZEROS = 1 << 20
# A limit on all bytes and relocations that are read: overlapping symbols of a hostile file could make that endless.
MAX_WORK = 1 << 24


class Target(NamedTuple):
    """The target of a reference: byte `offset` of `name`. For constants and strings, `name` is the digest of the
    content.

    `shown` is a name or a string for people; it does not count when targets are compared.
    """

    kind: str
    name: bytes
    offset: int
    shown: bytes = b""

    @property
    def key(self) -> tuple[str, bytes, int]:
        return self[:3]


class RelocatedField(NamedTuple):
    """A field that a relocation of `type` fills in, `at` bytes from the start of the piece."""

    at: int
    type: int
    target: Target

    @property
    def key(self) -> tuple[int, int, tuple[str, bytes, int]]:
        return self.at, self.type, self.target.key


class Extent(NamedTuple):
    """A named or anonymous piece of a section; `symbol` is 0 if it has no name."""

    section: int
    start: int
    end: int
    symbol: int


class Places:
    """The places in one payload, and what is there."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.view = subject.view
        self.fields: dict[int, Field] = FIELDS.get(self.view.machine, {})
        self._work = MAX_WORK
        self._symbols: dict[int, elf.Symbol] = {}
        self._relocations: dict[int, list[elf.Relocation]] = {}
        self._constants: dict[Extent, bytes] = {}
        self._replaced = {
            (entry.replacement.section, entry.replacement.offset): entry.name
            for entry in subject.entries
            if entry.replacement
        }
        self._by_section: dict[int, list[Extent]] = {}
        # Only symbols of loaded sections are of these kinds.
        for index, (kind, fields) in enumerate(zip(subject.kinds, self.view.symbol_fields(), strict=True)):
            if kind in (Kind.NEW, Kind.OVERRIDING):
                _, _, _, section, value, size = fields
                self._by_section.setdefault(section, []).append(Extent(section, value, value + size, index))
        for several in self._by_section.values():
            if len({one[:3] for one in several}) < len(several):  # some have several names
                several.sort(key=self._order)
            else:
                several.sort()
        self._starts = {section: [one.start for one in found] for section, found in self._by_section.items()}
        self._boundaries: dict[int, list[int]] | None = None

    def _order(self, extent: Extent) -> tuple[int, int, bytes]:
        """Of several symbols at one place, the longest comes last; of equally long ones, the first by name."""
        name = self.subject.symbol_name(extent.symbol)
        return extent.start, extent.end - extent.start, bytes(255 - byte for byte in name)

    def is_writable(self, section: int) -> bool:
        """Whether the content of a section can change."""
        return holds_state(self.view.sections[section])

    def is_code(self, section: int) -> bool:
        return bool(self.view.sections[section].flags & elf.SHF_EXECINSTR)

    def is_zero(self, extent: Extent) -> bool:
        """Whether it has no bytes in the file."""
        return self.view.sections[extent.section].type == elf.SHT_NOBITS

    def name_of(self, extent: Extent) -> bytes:
        """The name that identifies a symbol."""
        return self.subject.stable.get(extent.symbol) or self.subject.symbol_name(extent.symbol)

    def at(self, section: int, offset: int) -> Extent | None:
        """The symbol that covers a place; if none does, one that begins or ends there."""
        several = self._by_section.get(section, [])
        last = bisect_right(self._starts.get(section, []), offset)
        at_end = None
        for extent in reversed(several[max(0, last - 16) : last]):
            if extent.start == offset or offset < extent.end:
                return extent
            if offset == extent.end:
                at_end = at_end or extent
        return at_end

    def relocations(self, section: int) -> list[elf.Relocation]:
        """All relocations of a section, by place; if the table cannot be read, none, and an entry in `trouble`."""
        if section not in self._relocations:
            try:
                found = sorted(self.view.relocations(self.view.sections[section]))
            except ElfError as error:
                self.subject.trouble.append(error.message)
                found = []
            self._relocations[section] = found
        return self._relocations[section]

    def relocations_in(self, section: int, start: int, end: int) -> list[elf.Relocation]:
        """Those at places from `start` up to, but not including, `end`."""
        found = self.relocations(section)
        first = bisect_left(found, start, key=_place)
        return found[first : bisect_left(found, end, lo=first, key=_place)]

    def addend(self, relocation: elf.Relocation, section: int) -> int:
        """What is added to the symbol's value; with SHT_REL it is in the field itself."""
        if relocation.r_addend is not None:
            return relocation.r_addend
        field, at = self.fields.get(relocation.r_type), relocation.addend_at
        if field is None or at + field.form.size > self.view.sections[section].end:
            return 0
        addend = arm32_addend(relocation.r_type, field.form.unpack_from(self.view.data, at)[0])
        # The processor is two instructions ahead of a branch (Arm ELF: "addend of -8").
        return addend + 8 if relocation.r_type in (R_ARM_CALL, R_ARM_JUMP24) else addend

    def target(self, symbol: int, addend: int, depth: int = 0) -> Target:
        """What symbol number `symbol` plus `addend` is."""
        view, subject = self.view, self.subject
        fields = self._symbols.get(symbol) or self._symbols.setdefault(symbol, view.symbol(symbol))
        name, section = subject.original(view.string(fields.st_name)), fields.st_shndx
        if section == elf.SHN_UNDEF:
            return Target(HYPERVISOR, name, addend, name)
        if section >= len(view.sections):
            if name:  # livepatch-build --prelink makes this of the hypervisor's symbols
                return Target(HYPERVISOR, name, addend, name)
            return Target(ABSOLUTE, b"", fields.st_value + addend)
        offset = fields.st_value + addend
        end = fields.st_value + fields.st_size
        if fields.st_size and not fields.st_value <= offset <= end and subject.kinds[symbol] >= Kind.OVERRIDING:
            return self._of(Extent(section, fields.st_value, end, symbol), offset, depth)  # an array's -1st element
        return self.place(section, offset, depth)

    def place(self, section: int, offset: int, depth: int = 0) -> Target:
        """What byte `offset` of a section is."""
        header = self.view.sections[section]
        if header.flags & elf.SHF_MERGE and not header.flags & elf.SHF_WRITE and 0 <= offset < header.size:
            return self._merged(header, offset)
        extent = self.at(section, offset)
        if extent is None:
            if self.is_code(section) or self.is_writable(section) or not 0 <= offset < header.size:
                return Target(PLACE, header.name.encode(), offset, header.name.encode())
            extent = Extent(section, offset, self._anonymous_end(section, offset), 0)
        return self._of(extent, offset, depth)

    def _of(self, extent: Extent, offset: int, depth: int) -> Target:
        section, inside = extent.section, offset - extent.start
        if replaced := self._replaced.get((section, extent.start)):
            return Target(HYPERVISOR, replaced, inside, replaced)
        if extent.symbol and (self.is_code(section) or self.is_writable(section)):
            name = self.name_of(extent)
            return Target(OWN, name, inside, name)
        shown = self.subject.symbol_name(extent.symbol) if extent.symbol else b""
        return Target(CONSTANT, self.constant(extent, depth), inside, shown)

    def _merged(self, section: elf.Section, offset: int) -> Target:
        """A string, or one of many constants of one size, that the linker has merged with equal ones."""
        view, unit = self.view, max(1, section.entsize)
        if section.flags & elf.SHF_STRINGS:
            start = end = section.offset + offset
            if unit == 1:
                end = view.data.find(b"\0", start, section.end)
            else:
                while end < min(section.end, start + MAX_ANONYMOUS) and any(view.data[end : end + unit]):
                    end += unit
            content = view.data[start : section.end if end < 0 else end]
            if not self.afford(len(content)):
                return Target(PLACE, self._unlike(), offset, section.name.encode())
            return Target(STRING, content, 0, content)
        first = offset - offset % unit
        extent = Extent(section.number, first, min(first + unit, section.size), 0)
        return Target(CONSTANT, self.constant(extent, 0), offset - first)

    def constant(self, extent: Extent, depth: int) -> bytes:
        """The digest of a constant: its bytes, relocated fields set aside, and what these lead to."""
        if extent in self._constants:
            return self._constants[extent]
        relocations = self.relocations_in(extent.section, extent.start, extent.end)
        if depth > MAX_DEPTH or not self.afford(extent.end - extent.start + 64 * len(relocations)):
            return self._unlike()
        self._constants[extent] = b"itself"  # for references back to it
        content = self.masked(extent.section, extent.start, extent.end, relocations)
        if not extent.symbol:
            content = content.rstrip(b"\0")  # it may be padding: the end is not known
        keys = [self.reference(relocation, extent, depth + 1).key for relocation in relocations]
        self._constants[extent] = digest(content, *keys)
        return self._constants[extent]

    def reference(self, relocation: elf.Relocation, extent: Extent, depth: int = 0) -> RelocatedField:
        """A relocation in data.

        A field that is relative to its own place is an entry of a jump table, if it refers to code and the table has no
        name: the code that uses the table adds its start, so the entry's offset in the table is part of the addend.
        """
        addend, field = self.addend(relocation, extent.section), self.fields.get(relocation.r_type)
        at = relocation.r_offset - extent.start
        if field and field.relative and not extent.symbol:
            shndx = self.view.symbol(relocation.r_sym).st_shndx
            if 0 < shndx < len(self.view.sections) and self.is_code(shndx):
                addend -= at
        return RelocatedField(at, relocation.r_type, self.target(relocation.r_sym, addend, depth))

    def masked(self, section: int, start: int, end: int, relocations: list[elf.Relocation]) -> bytes:
        """Bytes of a section with the fields that relocations fill in set to 0."""
        header = self.view.sections[section]
        if header.type == elf.SHT_NOBITS:
            return bytes(min(max(0, end - start), MAX_ZEROS))
        content = bytearray(self.view.data[header.offset + start : min(header.offset + end, header.end)])
        for relocation in relocations:
            if field := self.fields.get(relocation.r_type):
                clear(content, relocation.r_offset - start, field)
        return bytes(content)

    def _unlike(self) -> bytes:
        """An identity that equals nothing in another payload: for what is not read."""
        return b"? %d" % id(self)

    def afford(self, work: int) -> bool:
        """Whether this much more may be read."""
        self._work -= work
        return self._work >= 0

    def _anonymous_end(self, section: int, offset: int) -> int:
        """The latest possible end of data without a name: where something else is known to begin."""
        if self._boundaries is None:
            self._boundaries = self._all_boundaries()
        known = self._boundaries.get(section, [])
        following = bisect_right(known, offset)
        end = known[following] if following < len(known) else self.view.sections[section].size
        return min(end, offset + MAX_ANONYMOUS)

    def _all_boundaries(self) -> dict[int, list[int]]:
        """By section: where symbols begin, and the targets of relocations."""
        found: dict[int, set[int]] = {
            section: {extent.start for extent in several} for section, several in self._by_section.items()
        }
        for section in self.view.sections[1:]:
            if not section.flags & elf.SHF_ALLOC:
                continue
            bias = 4 if self.is_code(section.number) and self.view.machine == elf.EM_X86_64 else 0
            for relocation in self.relocations(section.number):
                symbol = self.view.symbol(relocation.r_sym)
                if 0 < symbol.st_shndx < len(self.view.sections) and not self.is_code(symbol.st_shndx):
                    field = self.fields.get(relocation.r_type)
                    addend = self.addend(relocation, section.number) + (bias if field and field.relative else 0)
                    found.setdefault(symbol.st_shndx, set()).add(symbol.st_value + addend)
        return {section: sorted(places) for section, places in found.items()}


def digest(content: bytes, *keys: object) -> bytes:
    """The digest of bytes, and of the targets of the references in them."""
    return sha256(content + b"\0" + repr(keys).encode()).encode()


def clear(content: bytearray, at: int, field: Field) -> None:
    """Set the bits of a field to 0, as far as it is there."""
    if 0 <= at <= len(content) - field.form.size:
        field.form.pack_into(content, at, field.form.unpack_from(content, at)[0] & ~field.mask)


def _place(relocation: elf.Relocation) -> int:
    return relocation.r_offset
