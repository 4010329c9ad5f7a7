"""What one payload is and does, by its original names: what `lpmangle show` prints."""

from functools import cached_property
from typing import NamedTuple

from lpmangle import elf
from lpmangle.errors import LpmangleError, PayloadError
from lpmangle.review.identity import Extent, Places
from lpmangle.review.special import Hook, Special, hooks, special_sections
from lpmangle.review.subject import ReplacedFunction, Subject
from lpmangle.xen.signature import Signed, note_of, signed
from lpmangle.xen.symbols import Kind
from lpmangle.xen.variables import holds_state

# Kinds of what a payload adds; a table is in a .livepatch.* section, and Xen reads it.
FUNCTION, STATE, CONSTANT, TABLE = "function", "state", "constant", "table"


class Added(NamedTuple):
    """A new symbol: its original and its new name, and its place (`extent`). `binding` is STB_*."""

    kind: str
    name: bytes
    new_name: bytes
    section: str
    binding: int
    extent: Extent

    @property
    def size(self) -> int:
        """In bytes."""
        return self.extent.end - self.extent.start


class Needed(NamedTuple):
    """A symbol that the payload refers to and does not have; `new_name` is the name that Xen looks up."""

    name: bytes
    new_name: bytes

    @property
    def borrowed(self) -> bool:
        """Whether it has the name that a mangled payload below gave it."""
        return self.name != self.new_name


class Inventory:
    """Everything about one payload. What cannot be read is left out, and reported in `trouble`."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.view = subject.view
        self.places = Places(subject)

    @property
    def trouble(self) -> list[str]:
        """What could not be read, in words, each once."""
        return list(dict.fromkeys(self.subject.trouble))

    @property
    def machine(self) -> str:
        return elf.EM_NAMES.get(self.view.machine, f"ELF machine {self.view.machine}")

    @property
    def functions(self) -> list[ReplacedFunction]:
        """The functions that it replaces or deletes."""
        return self.subject.entries

    @property
    def version(self) -> int | None:
        """Version of struct livepatch_func; None without functions."""
        return self.functions[0].version if self.functions else None

    @cached_property
    def build_id(self) -> str | None:
        return self._note("build_id")

    @cached_property
    def depends(self) -> str | None:
        """The build-id of what the payload is put on."""
        return self._note("depends")

    @cached_property
    def xen_depends(self) -> str | None:
        """The build-id of the hypervisor that it is for."""
        return self._note("xen_depends")

    def _note(self, name: str) -> str | None:
        try:
            note: bytes | None = getattr(self.subject.payload, name)
        except PayloadError as error:
            self.subject.trouble.append(error.message)
            return None
        return None if note is None else note.hex()

    @cached_property
    def signed(self) -> Signed:
        """How it is signed; false if it is not."""
        return signed(self.view)

    @property
    def to_be_signed(self) -> bool:
        """Whether there is space for a signature that has not been made yet."""
        note = note_of(self.view)
        return note is not None and note.blank

    @property
    def stacked(self) -> bool:
        """Whether it is put on another payload, by its notes."""
        return bool(self.depends and self.xen_depends and self.depends != self.xen_depends)

    @cached_property
    def added(self) -> list[Added]:
        """The new symbols, in table order."""
        view, subject, found = self.view, self.subject, []
        kinds = [_kind(section) for section in view.sections]
        for index, (kind, fields) in enumerate(zip(subject.kinds, view.symbol_fields(), strict=True)):
            if kind == Kind.NEW:
                st_name, st_info, _, section, value, size = fields
                extent, names = (
                    Extent(section, value, value + size, index),
                    (subject.symbol_name(index), view.string(st_name)),
                )
                found.append(Added(kinds[section], *names, view.sections[section].name, st_info >> 4, extent))
        return found

    @cached_property
    def needed(self) -> list[Needed]:
        """The names that it needs from the hypervisor and from payloads below."""
        view, subject = self.view, self.subject
        found = set()
        for kind, (st_name, *_) in zip(subject.kinds, view.symbol_fields(), strict=True):
            if kind == Kind.UNDEFINED and (name := view.string(st_name)):
                found.add(Needed(subject.original(name), name))
        return sorted(found)

    @cached_property
    def hooks(self) -> list[Hook]:
        return hooks(self.places)

    @cached_property
    def special(self) -> list[Special]:
        return special_sections(self.view)

    @property
    def compilers(self) -> list[str]:
        """The compilers in .comment, each once."""
        section = self.view.section_named(".comment")
        if section is None or section.type == elf.SHT_NOBITS:
            return []
        return sorted({elf.text(word) for word in bytes(self.view.section_data(section)).split(b"\0") if word})


def _kind(section: elf.Section) -> str:
    if section.name.startswith(".livepatch."):
        return TABLE
    if section.flags & elf.SHF_EXECINSTR:
        return FUNCTION
    return STATE if holds_state(section) else CONSTANT


def take_inventory(subject: Subject) -> Inventory:
    """The same, completely read, so that `trouble` is complete."""
    inventory = Inventory(subject)
    for part in ("functions", "added", "needed", "hooks", "special", "build_id", "depends", "xen_depends"):
        try:
            getattr(inventory, part)
        except LpmangleError as error:
            subject.trouble.append(error.message)
            inventory.__dict__[part] = []
    return inventory
