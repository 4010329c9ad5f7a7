"""Does a manifest belong to a payload? Judged by digests, or, if another tool has rewritten the file, by all names."""

from collections import defaultdict
from contextlib import suppress

from lpmangle import elf
from lpmangle.elf import appended
from lpmangle.errors import LpmangleError
from lpmangle.manifest import embed
from lpmangle.manifest.read import Manifest, SymbolRecord, decode
from lpmangle.system.files import sha256
from lpmangle.xen.payload import Payload

BY_NAMES, BY_DIGEST = 1, 2


def belongs(data: bytes, found: Manifest) -> bool:
    """Whether `found` is the manifest of this payload, be it the original, as lpmangle wrote it, or signed since.

    Raises ElfError for a file that is not a payload.
    """
    return _fit(data, found) > 0


def fit(data: bytes, text: bytes) -> int:
    """How well a payload and a manifest's text fit together: BY_DIGEST, BY_NAMES, or 0; also where one is none."""
    with suppress(LpmangleError):
        return _fit(data, decode(text))
    return 0


def _fit(data: bytes, found: Manifest) -> int:
    digests = found.input.sha256, found.output.sha256
    if sha256(data) in digests:
        return BY_DIGEST
    view = elf.parse(data)
    if size := appended.size(view):
        view = elf.parse(data[:-size])
    bare = embed.without(view)
    if sha256(bare.data) in digests:
        return BY_DIGEST
    return BY_NAMES if has_names(bare, found) else 0


def has_names(view: elf.Object, found: Manifest) -> bool:
    """Whether a payload has the build-id and every name of a manifest, each at the place that the manifest says.

    The new names identify the payload, whatever else was changed since.
    """
    try:
        payload = Payload(view)
        build_id = payload.build_id
        if build_id is None or build_id.hex() != found.build_id or not (found.named or found.functions):
            return False
        functions = {entry.entry: entry.name for entry in payload.looked_up} if found.functions else {}
    except LpmangleError:
        return False
    if any(functions.get(one.entry) != one.name.encode() for one in found.functions):
        return False
    there: dict[str, list[elf.Symbol]] = defaultdict(list)
    for symbol in view.symbols():
        there[elf.text(view.string(symbol.st_name))].append(symbol)
    if not there.keys() >= {*found.kept, *(entry.name for entry in found.named)}:
        return False
    return all(any(is_like(view, symbol, entry) for symbol in there[entry.name]) for entry in found.symbols) and all(
        any(symbol.st_shndx == elf.SHN_UNDEF for symbol in there[entry.name]) for entry in found.references
    )


def is_like(view: elf.Object, symbol: elf.Symbol, entry: SymbolRecord) -> bool:
    """Whether a symbol is what the manifest says, its name and index aside."""
    section = view.sections[symbol.st_shndx].name if symbol.st_shndx < len(view.sections) else ""
    return (section, symbol.st_value, symbol.st_size) == (entry.section, entry.value, entry.size)
