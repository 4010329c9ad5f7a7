"""What was decided for a payload: for each symbol its new name, or why it keeps its own."""

from itertools import compress, count

from lpmangle.mangle import mark
from lpmangle.mangle.mark import Mark
from lpmangle.mangle.options import Options
from lpmangle.system.records import NamedTuple
from lpmangle.xen.symbols import Kind


class Outcome:
    """What was decided for a symbol that Xen counts as new; the outcome of other symbols is their `xen.Kind`.

    REFERENCE is for undefined symbols: they get the name that a payload below has given to the symbol.
    """

    RENAMED = 16
    GLOBAL = 17  # GLOBAL or WEAK under scope "local"
    GROUP_SIGNATURE = 18
    EXCLUDED = 19
    CARRIES_SUFFIX = 20
    REFERENCE = 21
    TWIN = 22  # Xen cannot tell its name from that of another symbol, which keeps it


REASONS: dict[int, str] = {
    Kind.NULL: "null symbol",
    Kind.UNDEFINED: "undefined",
    Kind.ABSOLUTE: "absolute, SHN_ABS",
    Kind.COMMON: "common, SHN_COMMON",
    Kind.NOT_LOADED: "section not loaded, no SHF_ALLOC",
    Kind.UNNAMED: "has no name",
    Kind.MERGE_LOCAL: ".L name in a SHF_MERGE section",
    Kind.MAPPING: "mapping symbol",
    Kind.OVERRIDING: "overriding: replaces a function",
    Outcome.GLOBAL: "not LOCAL, --scope local",
    Outcome.GROUP_SIGNATURE: "signature of a section group",
    Outcome.EXCLUDED: "excluded by --only or --keep",
    Outcome.CARRIES_SUFFIX: "carries the suffix already",
    Outcome.TWIN: "another symbol of this name keeps it",
}


class Reference(NamedTuple):
    """The name of a symbol in another payload, and the build-id of that payload."""

    name: bytes
    build_id: str


class Plan:
    """`outcomes` holds one Kind or Outcome per symbol; `renames` symbol index -> new name, in table order.

    `references` are the undefined symbols, by index, and `functions` the entries of .livepatch.funcs, by number, that
    refer to what other payloads have renamed (`stack`). `already` says that the payload is already mangled in exactly
    this way; then nothing is renamed. `mark` goes into the mangled file; `unmatched` are the globs that match no new
    symbol.
    """

    def __init__(self, options: Options, suffix: str, kinds: bytes) -> None:
        self.options = options
        self.suffix = suffix
        self.outcomes = bytearray(kinds)
        self.renames: dict[int, bytes] = {}
        self.references: dict[int, Reference] = {}
        self.functions: dict[int, Reference] = {}
        globs = mark.globs_text(options.only, options.keep)
        self.mark = Mark(suffix, options.suffix, options.template, options.scope, globs)
        self.already = False
        self.unmatched: list[str] = []

    @property
    def names(self) -> dict[int, bytes]:
        """Every symbol that gets a new name: renames, then references."""
        if not self.references:
            return self.renames
        return self.renames | {index: reference.name for index, reference in self.references.items()}

    @property
    def function_names(self) -> dict[int, bytes]:
        """Entry of .livepatch.funcs -> new name."""
        return {entry: reference.name for entry, reference in self.functions.items()}

    @property
    def changes(self) -> bool:
        """Whether the payload changes."""
        return bool(self.renames or self.references or self.functions)

    def flags(self, outcome: int) -> bytes:
        """One byte per symbol: 1 for those with that outcome, else 0."""
        table = bytearray(256)
        table[outcome] = 1
        return bytes(self.outcomes).translate(table)

    def indices(self, outcome: int) -> list[int]:
        """The symbols with that outcome, in table order."""
        return list(compress(count(), self.flags(outcome)))
