"""What a user may choose: one value, made once from the command line, and passed as a whole."""

from lpmangle.mangle.names import DEFAULT_SUFFIX, DEFAULT_TEMPLATE
from lpmangle.system.records import NamedTuple

SCOPES = ("local", "new")


def is_note(word: str) -> bool:
    """Whether a word is KEY=VALUE, both printable text and more than blanks."""
    key, _, value = word.partition("=")
    return bool(key.strip() and value.strip()) and word.isprintable()


# Not a dataclass: that takes 3 ms of a start-up of 50, this takes 0.5.
class Options(NamedTuple):
    """What a user may choose, the same for all payloads of a run.

    The fields have the names of `lpmangle`'s options, in the order in which they take effect; --help explains them.
    """

    suffix: str = DEFAULT_SUFFIX
    """What makes the new names unique: `buildid`, `buildid:N`, `name` or `text:STRING` (`names.resolve_suffix`)."""

    template: str = DEFAULT_TEMPLATE
    """How a new name is made: from `{symbol}`, or `{file}` and `{name}`, and `{suffix}` (`names.Namer`)."""

    only: tuple[str, ...] = ()
    """Globs, for a whole name or the part after its last `#`: if there are any, only matching symbols are renamed."""

    keep: tuple[str, ...] = ()
    """Globs likewise: symbols that match one keep their names."""

    scope: str = "local"
    """Which new symbols are renamed: the LOCAL ones (`local`), or GLOBAL and WEAK ones too (`new`)."""

    against: tuple[str, ...] = ()
    """Sources of the payloads that this one is put on: borrowed names are those that are used there."""

    xen: str | None = None
    """The hypervisor (its xen-syms, or a copy of /proc/xen/xensyms): its names are not borrowed from payloads."""

    force: bool = False
    """Whether to mangle a payload even if it is signed or has bytes appended."""

    note: tuple[str, ...] = ()
    """Notes for people, each as KEY=VALUE, such as `XSA=458`: they are only kept in the manifest."""

    source: str | None = None
    """The patch, or whatever the payload was made from: the manifest keeps its digest."""

    embed: bool = False
    """Whether to put the manifest into the payload, too."""

    strict: bool = False
    """Whether a warning is an error, so that nothing is written."""

    dry_run: bool = False
    """Whether to decide only, and write nothing."""

    output: str | None = None
    """Where the payload goes, a file or a folder (`output_place`); None: in place. It is named after that file."""

    manifest: str | None = None
    """Where its manifest goes, a file or a folder (`manifest_place`); None: beside the output."""

    depfile: str | None = None
    """Where to write the rule, for make and ninja, that says what `output` is made from; None: nowhere."""

    if_changed: bool = False
    """Whether to leave a file alone that already has the right content."""
