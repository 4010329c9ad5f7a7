"""The manifest's types: what was renamed in a payload, and what is needed to undo it. Manifests are read only here.

Readers ignore unknown fields, but refuse a newer major version. `write` writes manifests; it is separate because the
command that runs in build loops has no time to load msgspec.
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
    """A note about the payload: `--note KEY=VALUE`."""

    key: str
    value: str


class OptionsRecord(msgspec.Struct, frozen=True):
    """The options of the run; `suffix` is as it was typed, the manifest's own `suffix` is its value."""

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
    """A mangled payload of the stack that this one is put on; template and suffix are those of its names."""

    payload: str
    build_id: Hex
    template: str
    suffix: str


class ReferenceRecord(msgspec.Struct, frozen=True):
    """An undefined symbol, with the name that the payload with `build_id` has given to it."""

    index: Word
    original: str
    name: str
    st_name: Word
    build_id: Hex


class FunctionNameRecord(msgspec.Struct, frozen=True):
    """An entry of .livepatch.funcs, by number, with such a name; `addend` is that of its relocation in the input."""

    entry: Unsigned
    original: str
    name: str
    addend: int
    build_id: Hex


class Manifest(msgspec.Struct, frozen=True):
    """`payload` is the name that the payload is uploaded by: its file name without the ending.

    `output` is the payload without an embedded manifest, because a manifest cannot contain its own digest. If there is
    one, `section_headers` is where the section header table was (e_shoff) before it was embedded. `references` and
    `functions` were borrowed from the payloads `against`; `string_sections` have the names of the latter. `kept` are
    the names of new symbols that were not renamed; `unsure` the original names of symbols that are new under some
    versions of Xen, and overriding under others. `notes` and `source` are what --note and --source gave. `frame`, in
    base64, is what other tools do not keep of the input (`frame`); manifests of lpmangle 0.1 and of very large payloads
    have none.
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
        """Every name that was borrowed from a payload below."""
        return [*self.references, *self.functions]


class Head(msgspec.Struct, frozen=True):
    """What is needed to find a manifest. Reading a thousand heads takes as long as a few whole manifests."""

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
    """What is needed of a manifest to read a trace."""

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
    """The manifest in `data`. Raises ManifestError for anything else, and for a version that we cannot read."""
    return _read(Manifest, data)


def decode_head(data: bytes) -> Head:
    """The head of the manifest in `data`; its symbols are not read. Raises ManifestError."""
    return _read(Head, data)


def head_in(start: bytes) -> Head | None:
    """The head of a manifest that begins with `start`; None if its symbols are not last, where lpmangle puts them.

    Reading symbols takes nine tenths of the time for a thousand manifests.
    """
    before, symbols, _ = start.partition(b'"symbols": [')
    if symbols:
        with suppress(ManifestError):
            return decode_head(before + symbols + b"]}")
    return None


def decode_names(data: bytes) -> Names:
    """The names in the manifest in `data`, whose head has been read. Raises ManifestError."""
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
    from inspect import cleandoc  # loaded here: readers of manifests do not need it

    made = msgspec.json.schema(Manifest)
    for definition in made["$defs"].values():
        definition["description"] = cleandoc(definition["description"])  # as Python 3.13 has docstrings already
    text = msgspec.json.encode(made, order="sorted")
    return msgspec.json.format(text, indent=2).decode() + "\n"
