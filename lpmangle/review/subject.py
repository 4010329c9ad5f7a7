"""One payload under review: what it says about itself, with the original names of its symbols."""

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

from lpmangle import elf
from lpmangle.errors import ElfError, PayloadError
from lpmangle.mangle import mark
from lpmangle.mangle.mark import Mark
from lpmangle.xen.abi import ABSOLUTE_RELOCATION, EXPECTATION_SIZE, FUNCS_SECTION
from lpmangle.xen.machines import MACHINES
from lpmangle.xen.payload import Location, Payload
from lpmangle.xen.symbols import Kind, SymbolRules
from lpmangle.xen.variables import Variable, variables

# Where the original names come from.
FROM_MANIFEST, FROM_MARK, AS_THEY_STAND = "manifest", "mark", "file"


class ReplacedFunction(NamedTuple):
    """One entry of .livepatch.funcs. `name` is the function's original name; sizes are in bytes.

    `replacement` is None if code is only deleted (new_addr 0), `new_size` bytes of it. `expected` is how the old code
    must begin, None if anything is allowed.
    """

    name: bytes
    old_size: int
    new_size: int
    old_addr: int
    version: int
    replacement: Location | None
    expected: bytes | None


class Subject:
    """A payload, with the original names of its symbols.

    `originals` maps new names to original ones, from a manifest. Without it, they are derived with the mark in the
    file; without a mark, names are used as they are. What cannot be read is left out and reported in `trouble`.
    """

    def __init__(self, payload: Payload, originals: Mapping[bytes, bytes] | None = None) -> None:
        self.payload = payload
        self.view = payload.elf
        self.mark: Mark | None = mark.find(payload.elf)
        self.trouble: list[str] = []
        # Its notes, each as KEY=VALUE, and the SHA-256 of what it was made from, from the manifest.
        self.notes: list[str] = []
        self.source: str | None = None
        self._originals = originals
        self._names: dict[int, bytes] = {}

    @property
    def names_from(self) -> str:
        """Where the original names come from: one of FROM_MANIFEST, FROM_MARK, AS_THEY_STAND."""
        if self._originals is not None:
            return FROM_MANIFEST
        return FROM_MARK if self.mark and self.mark.tells_originals else AS_THEY_STAND

    def original(self, name: bytes) -> bytes:
        """The original of `name`, a name in the file."""
        if self._originals is not None:
            return self._originals.get(name, name)
        return self.mark.original(name) if self.mark else name

    def symbol_name(self, index: int) -> bytes:
        """The original name of symbol number `index`."""
        if index not in self._names:
            self._names[index] = self.original(self.view.symbol_name(index))
        return self._names[index]

    @cached_property
    def kinds(self) -> bytes:
        """`Payload.kinds`; if .livepatch.funcs cannot be read, nothing overrides."""
        try:
            return self.payload.kinds
        except (ElfError, PayloadError):
            rules = SymbolRules([section.flags for section in self.view.sections], self.view.machine)
            kinds = bytearray(rules.kind(s.st_shndx, self.view.string(s.st_name)) for s in self.view.symbols())
            kinds[0] = Kind.NULL
            return bytes(kinds)

    @cached_property
    def variables(self) -> list[Variable]:
        """Its new symbols that hold state."""
        try:
            return variables(self.payload, self.original)
        except (ElfError, PayloadError):
            return []

    @cached_property
    def stable(self) -> dict[int, bytes]:
        """Index of a variable -> the name that identifies it in other builds."""
        return {variable.symbol: variable.stable for variable in self.variables}

    @cached_property
    def entries(self) -> list[ReplacedFunction]:
        """The functions that the payload replaces or deletes, in the order of .livepatch.funcs."""
        try:
            return list(self._entries())
        except (ElfError, PayloadError) as error:
            self.trouble.append(error.message)
            return []

    def _entries(self) -> "list[ReplacedFunction]":
        view, functions = self.view, self.payload.functions
        section, machine = view.section_named(FUNCS_SECTION), MACHINES.get(view.machine)
        if not functions or section is None or machine is None:
            return []
        size = section.size // len(functions)
        names = self._entry_names(section)
        found = []
        for function in functions:
            start = section.offset + function.start
            _, _, old_addr, new_size, old_size, version = machine.func.unpack_from(view.data, start)
            expected = None
            if size >= machine.expect_at + EXPECTATION_SIZE:
                flags = view.data[start + machine.expect_at]
                if flags & 1:
                    at = start + machine.expect_at + 1
                    expected = view.data[at : at + (flags >> 1 & 31)]
            name = self.original(names.get(function.start, b""))
            found.append(ReplacedFunction(name, old_size, new_size, old_addr, version, function.replacement, expected))
        return found

    def _entry_names(self, section: elf.Section) -> dict[int, bytes]:
        """Offset of an entry in .livepatch.funcs -> the string that its first field points to."""
        view, names = self.view, dict[int, bytes]()
        absolute = ABSOLUTE_RELOCATION[view.machine]
        for relocation in view.relocations(section):
            if relocation.r_type != absolute:
                continue
            symbol, addend = view.symbol(relocation.r_sym), relocation.r_addend
            if not 0 < symbol.st_shndx < len(view.sections):
                continue
            if addend is None:
                if relocation.addend_at + view.layout.address.size > section.end:
                    continue
                (addend,) = view.layout.address.unpack_from(view.data, relocation.addend_at)
            place = view.sections[symbol.st_shndx]
            start = place.offset + symbol.st_value + addend
            end = view.data.find(b"\0", max(start, 0), place.end)
            if place.offset <= start <= end:
                names[relocation.r_offset] = view.data[start : min(end, start + elf.MAX_NAME_BYTES)]
        return names
