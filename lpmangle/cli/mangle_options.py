"""The options of `mangle` in one table: `options` makes click's of it, `common_call` reads them without click."""

from lpmangle.mangle.names import DEFAULT_SUFFIX, DEFAULT_TEMPLATE
from lpmangle.mangle.options import SCOPES
from lpmangle.system.records import NamedTuple

# What an option's value is.
FLAG = "there or not"
TEXT, TEXTS = "text", "text, may be repeated"
CHOICE = "one of its choices"
NUMBER = "a number, at least 1"
FILE, SOURCES = "a file to read", "sources of manifests, may be repeated"
OUTPUT, OUTPUT_OR_FOLDER = "a file to write", "a file to write, or the folder for it"


class Option(NamedTuple):
    """`names` are as in click: as typed, then the parameter's name if it differs."""

    names: tuple[str, ...]
    kind: str
    help: str
    metavar: str | None = None
    default: object = None
    choices: tuple[str, ...] = ()

    @property
    def parameter(self) -> str:
        """The name of its value in the program."""
        return self.names[-1].lstrip("-").replace("-", "_")


NAMING = (
    Option(
        ("--suffix",),
        TEXT,
        "What makes the names unique: buildid (default), buildid:N (its first N digits, N >= 7), "
        "name (the payload's file name without its ending), or text:STRING.",
        metavar="SPEC",
        default=DEFAULT_SUFFIX,
    ),
    Option(
        ("--template",),
        TEXT,
        "The form of a new name: {symbol} and {suffix}; {file} and {name} are the parts of {symbol} before and after "
        f"the last '#'. Default: {DEFAULT_TEMPLATE}",
        metavar="TEMPLATE",
        default=DEFAULT_TEMPLATE,
    ),
    Option(
        ("--scope",),
        CHOICE,
        "Rename new LOCAL symbols only (local, the default), or new GLOBAL and WEAK symbols as well (new).",
        default="local",
        choices=SCOPES,
    ),
    Option(("--only",), TEXTS, "Rename only symbols that match; may be repeated.", "GLOB"),
    Option(("--keep",), TEXTS, "Do not rename symbols that match; may be repeated.", "GLOB"),
)
AGAINST = Option(
    ("--against",),
    SOURCES,
    "The mangled payload below PAYLOAD, or its manifest; or a catalog, a folder or the URL of a debuginfod server "
    "that has it and all others below. PAYLOAD then refers to their new names. May be repeated.",
    "SOURCE",
)
NOTES = (
    Option(
        ("--note",),
        TEXTS,
        "Keep a note such as XSA=458 in the manifest, for show and catalog find; may be repeated.",
        "KEY=VALUE",
    ),
    Option(("--source",), FILE, "Keep the digest of this file, usually the patch, in the manifest.", "FILE"),
)
STRICT = Option(("--strict",), FLAG, "Treat warnings as errors: nothing is written.")
FORCE = Option(("--force",), FLAG, "Mangle even if the payload is signed or has bytes appended.")
EMBED = Option(("--embed",), FLAG, "Put the manifest into the payload as well, as section .debug_lpmangle.")
WORDINESS = (
    Option(("-v", "--verbose"), FLAG, "List the renamed symbols, and where settings came from."),
    Option(("-q", "--quiet"), FLAG, "Print only warnings and errors."),
)
OPTIONS = (
    *NAMING,
    Option(
        ("-o", "--output"),
        OUTPUT_OR_FOLDER,
        "Write to this file or folder, and leave PAYLOAD as it is. Several payloads need a folder.",
        "FILE",
    ),
    Option(("--manifest",), OUTPUT_OR_FOLDER, "Write the manifest to this file or folder.", "FILE"),
    Option(("--depfile",), OUTPUT, "With -o: write a dependency rule for make or ninja.", "FILE"),
    Option(("--if-changed",), FLAG, "Do not rewrite files whose content would stay the same."),
    FORCE,
    EMBED,
    AGAINST,
    Option(
        ("--xen",),
        FILE,
        "For --against: the hypervisor's xen-syms, or a copy of /proc/xen/xensyms. Names that it has are not borrowed.",
        "FILE",
    ),
    Option(("-j", "--jobs"), NUMBER, "Use N processes (default: 1).", "N", default=1),
    Option(("--fail-fast",), FLAG, "Start no more payloads after a failure."),
    *NOTES,
    STRICT,
    Option(("--dry-run",), FLAG, "Show the new name of each symbol, or why it keeps its name; write nothing."),
    Option(("--json", "as_json"), FLAG, "Report as JSON."),
    *WORDINESS,
)
