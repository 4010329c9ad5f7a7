"""Rebuilds the original from a mangled payload that another tool has rewritten, such as objcopy for a signature.

The manifest's frame has what such a tool does not keep, the payload has the content of the sections. The manifest's
digest says whether the result is the original, byte for byte.
"""

from typing import NamedTuple

from lpmangle import elf
from lpmangle.elf.identity import SectionId, matched, renumbered, section_ids, symbol_ids
from lpmangle.errors import ElfError, ManifestError
from lpmangle.manifest import frame
from lpmangle.manifest.read import Manifest
from lpmangle.system.files import sha256

NO_FRAME = "its manifest has no frame (lpmangle 0.1 wrote none, and very large payloads get none)"


class Rebuilt(NamedTuple):
    """The original if it is `proven`. If not, the content of the sections `changed` is not the original's."""

    view: elf.Object
    proven: bool
    changed: list[SectionId]


def rebuild(view: elf.Object, found: Manifest) -> Rebuilt:
    """Rebuild the original. Raises ManifestError if the manifest does not have what is needed for that."""
    if found.frame is None:
        raise ManifestError(NO_FRAME)
    raw = frame.decode(found.frame)
    try:
        bare, checks = frame.unfold(raw, found.input.size, len(view.data))
    except ElfError as error:
        raise ManifestError(f"the frame in the manifest is damaged: {error.message}") from None
    there = {one: view.sections[number] for number, one in enumerate(section_ids(view))}
    ids, numbers = section_ids(bare), _Numbers(view, bare, found)
    out, changed = bytearray(bare.data), list[SectionId]()
    for number, expected in checks.items():
        section, one = bare.sections[number], there.get(ids[number])
        # A section that got names of functions has them after its content.
        content = numbers.content(one)[: section.size] if one else b""
        if len(content) < section.end - section.offset or frame.checksum(content) != expected:
            changed.append(ids[number])
        out[section.offset : section.end] = content.ljust(section.end - section.offset, b"\0")
    try:
        original = elf.parse(bytes(out))
    except ElfError as error:  # the content of its sections was changed, and they overlap with tables
        raise ManifestError(f"the result is not a payload: {error.message}") from None
    return Rebuilt(original, sha256(out) == found.input.sha256, changed)


class _Numbers:
    """Relocations of sections that are not loaded, such as debug information, with the original's symbol numbers."""

    def __init__(self, view: elf.Object, bare: elf.Object, found: Manifest) -> None:
        names = {entry.index: entry.name.encode() for entry in found.named}
        self._view = view
        self._matched = matched(symbol_ids(bare, names), symbol_ids(view))
        self._same = self._matched == list(range(len(self._matched)))

    def content(self, section: elf.Section) -> bytes:
        if self._same or section.type not in (elf.SHT_REL, elf.SHT_RELA):
            return bytes(self._view.section_data(section))
        return renumbered(self._view, section, self._number)

    def _number(self, index: int) -> int:
        found = self._matched[index] if index < len(self._matched) else None
        return index if found is None else found
