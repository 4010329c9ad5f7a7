"""From a mangled payload and its manifest back to the original, byte for byte."""

import struct

from lpmangle import elf
from lpmangle.errors import ElfError, ManifestError, PayloadError, ProofError
from lpmangle.mangle import function_names as functions
from lpmangle.mangle.apply import prove
from lpmangle.manifest.read import Manifest
from lpmangle.system.files import sha256
from lpmangle.xen.payload import Payload


def prove_manifest(payload: Payload, after: bytes, manifest: Manifest) -> None:
    """Raise ProofError unless `after` is the file of `payload` with exactly the new names that `manifest` says."""
    names = {symbol.index: symbol.name.encode() for symbol in manifest.named}
    prove(payload, after, names, {function.entry: function.name.encode() for function in manifest.functions})


def undo(view: elf.Object, manifest: Manifest) -> bytes:
    """The original, byte for byte. Raises ManifestError if `view` and `manifest` do not lead back to it."""
    other = ManifestError(
        "the manifest does not lead back to the original: it belongs to another payload, or this one was changed since",
        hint="give the right manifest with -m",
    )
    table, size = manifest.string_table, manifest.input.size
    renamed = manifest.named
    if size > len(view.data) or table.section != view.strtab.number:
        raise other
    out = bytearray(view.data[:size])
    try:
        for symbol in renamed:
            if symbol.index >= view.symbol_count:
                raise other
            view.layout.word.pack_into(out, view.symbol_offset(symbol.index), symbol.st_name)
        if renamed or manifest.functions:
            view.put_place(out, table.section, table.offset, table.size)
        if manifest.functions:
            _undo_functions(out, view, manifest)
    # An offset past the shortened file, a number that does not fit into its field, a missing entry or section.
    except (struct.error, KeyError, IndexError, ElfError, PayloadError):
        raise other from None
    if len(out) != size or sha256(out) != manifest.input.sha256:
        raise other
    # The manifest proves nothing: the result must be a payload that becomes this one by these renames.
    original = bytes(out)
    try:
        before = elf.parse(original)
        prove_manifest(Payload(before), view.data, manifest)
        if any(before.string(before.symbol(s.index).st_name) != s.original.encode() for s in renamed):
            raise other
    except (ElfError, PayloadError, ProofError):
        raise other from None
    return original


def _undo_functions(out: bytearray, view: elf.Object, manifest: Manifest) -> None:
    addends = {function.entry: function.addend for function in manifest.functions}
    places = {place.section: (place.offset, place.size) for place in manifest.string_sections}
    functions.restore(out, Payload(view), addends, places)
