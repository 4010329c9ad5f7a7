"""The manifest's types: what was renamed in a payload, and what it takes to undo it. Read here alone.

Readers ignore fields that they do not know; a newer major version is refused. `write` writes it, apart from here
because the command that runs in build loops has no time to load msgspec.
"""

from contextlib import suppress
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from lpmangle.errors import ManifestError
from lpmangle.manifest.format import FORMAT, VERSION

MAJOR = VERSION.partition(".")[0]

_T = TypeVar("_T", "Manifest", "Head")

Unsigned = Annotated[int, msgspec.Meta(ge=0)]
Word = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
Hex = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{2})+$")]


class FileContent(msgspec.Struct, frozen=True):
    """A file's content: its size in bytes and SHA-256."""

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    size: Unsigned


class SectionPlace(msgspec.Struct, frozen=True):
    """Where a section's data was in the input: section number, sh_offset, sh_size."""

    section: Word
    offset: Unsigned
    size: Unsigned


class NoteRecord(msgspec.Struct, frozen=True):
    """What people are to know of the payload: `--note KEY=VALUE`."""

    key: str
    value: str


class OptionsRecord(msgspec.Struct, frozen=True):
    """The options of the run; `suffix` is what was asked for, the manifest's own `suffix` what it came to."""

    suffix: str
    template: str
    scope: Literal["local", "new"]
    only: list[str]
    keep: list[str]


class SymbolRecord(msgspec.Struct, frozen=True):
    """One renamed symbol. `value` is st_value, the offset in `section`; `st_name` the original one."""

    index: Word
    original: str
    name: str
    section: str
    value: Unsigned
    size: Unsigned
    type: str
    binding: str
    st_name: Word


class BelowRecord(msgspec.Struct, frozen=True):
    """A mangled payload of the stack that this one is put on; template and suffix are what its names are made by."""

    payload: str
    build_id: Hex
    template: str
    suffix: str


class ReferenceRecord(msgspec.Struct, frozen=True):
    """An undefined symbol that got the name which the payload with `build_id` has given to it."""

    index: Word
    original: str
    name: str
    st_name: Word
    build_id: Hex


class FunctionNameRecord(msgspec.Struct, frozen=True):
    """An entry of .livepatch.funcs, by its number, that got such a name; `addend` is its relocation's in the input."""

    entry: Unsigned
    original: str
    name: str
    addend: int
    build_id: Hex


class Manifest(msgspec.Struct, frozen=True):
    """`payload` is the name that the payload is uploaded by: its file name without the ending.

    `output` is the payload without an embedded manifest, which cannot hold its own digest. If there is one,
    `section_headers` is where the section header table was (e_shoff) before it was embedded. What was taken from the
    payloads `against` are `references` and `functions`; `string_sections` hold the names of the latter. `kept` are the
    names of new symbols that were not renamed; `unsure` the original names of symbols that are
    new under some versions of Xen only, and overriding under others. `notes` are what people said of the payload, and
    `source` is what they said that it was made from (--source). `frame`, base64, is what other tools do not keep of the
    input (`frame`); manifests of lpmangle 0.1 have none, nor those of very large payloads.
    """

    format: Literal["lpmangle-manifest"]
    version: str
    payload: str
    machine: str
    build_id: Hex | None
    depends: Hex | None
    xen_depends: Hex | None
    input: FileContent
    output: FileContent
    string_table: SectionPlace
    suffix: str
    options: OptionsRecord
    symbols: list[SymbolRecord]
    section_headers: Unsigned | None = None
    against: list[BelowRecord] = []
    references: list[ReferenceRecord] = []
    functions: list[FunctionNameRecord] = []
    string_sections: list[SectionPlace] = []
    kept: list[str] = []
    unsure: list[str] = []
    notes: list[NoteRecord] = []
    source: FileContent | None = None
    frame: str | None = None

    @property
    def named(self) -> "list[SymbolRecord | ReferenceRecord]":
        """Every symbol that got a new name."""
        return [*self.symbols, *self.references]

    @property
    def borrowed(self) -> "list[ReferenceRecord | FunctionNameRecord]":
        """Every name that is borrowed from a payload below."""
        return [*self.references, *self.functions]


class Head(msgspec.Struct, frozen=True):
    """What a manifest is found by. A thousand of them are read in the time of a few whole manifests."""

    format: Literal["lpmangle-manifest"]
    version: str
    payload: str
    build_id: Hex | None
    suffix: str
    options: OptionsRecord
    depends: Hex | None = None
    against: list[BelowRecord] = []
    notes: list[NoteRecord] = []


class Name(msgspec.Struct, frozen=True, gc=False):
    """Original and new name of a symbol."""

    original: str
    name: str


class Names(msgspec.Struct, frozen=True):
    """What a trace needs of a manifest."""

    payload: str
    build_id: Hex | None
    symbols: list[Name]
    references: list[Name] = []
    functions: list[Name] = []


class _Version(msgspec.Struct):
    format: str = ""
    version: str = ""


@cache
def _decoder(kind: type[Any]) -> msgspec.json.Decoder[Any]:
    """Made when it is needed: for one symbol in one manifest that is a good part of the work."""
    return msgspec.json.Decoder(kind)


def decode(data: bytes) -> Manifest:
    """The manifest in `data`. Raises ManifestError for anything else, and for a version that is not ours to read."""
    return _read(Manifest, data)


def decode_head(data: bytes) -> Head:
    """The head of the manifest in `data`; its symbols are not looked at. Raises ManifestError."""
    return _read(Head, data)


def head_in(start: bytes) -> Head | None:
    """The head of a manifest that begins with `start`; None if its symbols do not stand last, where lpmangle puts them.

    They are nine tenths of the time that a thousand manifests take.
    """
    before, symbols, _ = start.partition(b'"symbols": [')
    if symbols:
        with suppress(ManifestError):
            return decode_head(before + symbols + b"]}")
    return None


def decode_names(data: bytes) -> Names:
    """The names in the manifest in `data`, whose head has been read before. Raises ManifestError."""
    try:
        names: Names = _decoder(Names).decode(data)
        return names
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ManifestError(f"not a manifest of lpmangle: {error}") from None


def _read(kind: type[_T], data: bytes) -> _T:
    try:
        found: _T = _decoder(kind).decode(data)
        if found.version.partition(".")[0] == MAJOR:
            return found
        problem = ""
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        problem = f": {error}"
    with suppress(msgspec.MsgspecError, UnicodeError, RecursionError):  # what it says of itself explains more
        head = _decoder(_Version).decode(data)
        major = head.version.partition(".")[0]
        if head.format != FORMAT:
            problem = ""
        elif major != MAJOR:
            raise ManifestError(
                f"manifest version {head.version!r}; this lpmangle reads version {MAJOR}",
                hint="use the lpmangle that wrote it, or a newer one" if major.isdecimal() else "",
            )
    raise ManifestError(f"not a manifest of lpmangle{problem}")


def schema() -> str:
    """The JSON schema of a manifest, as it is shipped in manifest.schema.json."""
    from inspect import cleandoc  # loaded here: no reader of manifests needs it

    made = msgspec.json.schema(Manifest)
    for definition in made["$defs"].values():
        definition["description"] = cleandoc(definition["description"])  # as Python 3.13 has docstrings already
    text = msgspec.json.encode(made, order="sorted")
    return msgspec.json.format(text, indent=2).decode() + "\n"
