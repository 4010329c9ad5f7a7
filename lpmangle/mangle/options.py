"""What a user may choose: one value, made once from the command line and passed whole."""

from lpmangle.mangle.names import DEFAULT_SUFFIX, DEFAULT_TEMPLATE
from lpmangle.system.records import NamedTuple

SCOPES = ("local", "new")


def is_note(word: str) -> bool:
    """Whether a word is KEY=VALUE, both printable text and more than blanks."""
    key, _, value = word.partition("=")
    return bool(key.strip() and value.strip()) and word.isprintable()


# Not a dataclass: that is 3 ms of a start-up of 50, this is 0.5.
class Options(NamedTuple):
    """What a user may choose, the same for all payloads of a run.

    The fields are called like the options of `lpmangle` and stand in the order in which they take effect.
    """

    suffix: str = DEFAULT_SUFFIX
    """What makes the new names unique: `buildid`, `buildid:N`, `name` or `text:STRING` (`names.resolve_suffix`)."""

    template: str = DEFAULT_TEMPLATE
    """How a new name is made: of `{symbol}`, or `{file}` and `{name}`, and `{suffix}` (`names.Namer`)."""

    only: tuple[str, ...] = ()
    """Globs, for a symbol's whole name or for the part after its last `#`: what fits none stays; if there are any."""

    keep: tuple[str, ...] = ()
    """Such globs: what fits one stays."""

    scope: str = "local"
    """Which new symbols are renamed: the LOCAL ones (`local`), or GLOBAL and WEAK ones too (`new`)."""

    against: tuple[str, ...] = ()
    """Sources of the payloads that this one is put on: what it takes from them is called as it is there."""

    xen: str | None = None
    """The hypervisor below all (its xen-syms, or a copy of /proc/xen/xensyms): its names come from no payload."""

    force: bool = False
    """Whether a payload is changed that has a signature or other bytes appended."""

    note: tuple[str, ...] = ()
    """What people are to know of the payload, each as KEY=VALUE, such as `XSA=458`: kept in the manifest, no more."""

    source: str | None = None
    """The patch, or whatever the payload was made from: the manifest has its digest."""

    embed: bool = False
    """Whether the manifest is put into the payload as well."""

    strict: bool = False
    """Whether a warning is an error, and nothing is written."""

    dry_run: bool = False
    """Whether that is all: nothing is written."""

    output: str | None = None
    """Where the payload goes, a file or a folder (`output_place`); None: in place. It is named after that file."""

    manifest: str | None = None
    """Where its manifest goes, a file or a folder (`manifest_place`); None: beside the output."""

    depfile: str | None = None
    """Where the rule goes that says of what `output` is made, for make and ninja; None: there is none."""

    if_changed: bool = False
    """Whether a file that has its content already is left alone."""
