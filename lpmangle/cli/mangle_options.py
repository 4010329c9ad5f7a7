"""The options of `mangle` in one table: `options` makes click's of it, `common_call` reads them without click."""

from lpmangle.mangle.names import DEFAULT_SUFFIX, DEFAULT_TEMPLATE
from lpmangle.mangle.options import SCOPES
from lpmangle.records import NamedTuple

# What an option's value is.
FLAG = "there or not"
TEXT, TEXTS = "text", "text, may be repeated"
CHOICE = "one of its choices"
NUMBER = "a number, at least 1"
FILE, SOURCES = "a file to read", "sources of manifests, may be repeated"
OUTPUT, OUTPUT_OR_FOLDER = "a file to write", "a file to write, or the folder for it"


class Option(NamedTuple):
    """`names` are as click takes them: as typed, and then the parameter's if that is another one."""

    names: tuple[str, ...]
    kind: str
    help: str
    metavar: str | None = None
    default: object = None
    choices: tuple[str, ...] = ()

    @property
    def parameter(self) -> str:
        """What the program calls its value."""
        return self.names[-1].lstrip("-").replace("-", "_")


NAMING = (
    Option(
        ("--suffix",),
        TEXT,
        "What makes the names unique: buildid (default), buildid:N (its first N digits, N >= 7), "
        "name (the payload's file name without its ending), text:STRING.",
        metavar="SPEC",
        default=DEFAULT_SUFFIX,
    ),
    Option(
        ("--template",),
        TEXT,
        "How a new name is made of {symbol} (or {file} and {name}: what stands before and after the "
        f"last '#') and {{suffix}}. Default: {DEFAULT_TEMPLATE}",
        metavar="TEMPLATE",
        default=DEFAULT_TEMPLATE,
    ),
    Option(
        ("--scope",),
        CHOICE,
        "Which new symbols: the LOCAL ones (default), or all (new), GLOBAL and WEAK too.",
        default="local",
        choices=SCOPES,
    ),
    Option(("--only",), TEXTS, "Rename only symbols that fit; may be repeated.", "GLOB"),
    Option(("--keep",), TEXTS, "Leave symbols that fit alone; may be repeated.", "GLOB"),
)
AGAINST = Option(
    ("--against",),
    SOURCES,
    "A mangled payload (or its manifest) that PAYLOAD is put on, or a catalog, folder or URL of a debuginfod "
    "server that has it and those below it: names borrowed from them become what they are there. May be repeated.",
    "SOURCE",
)
NOTES = (
    Option(
        ("--note",),
        TEXTS,
        "Keep this in the manifest, such as XSA=458, for show and catalog find; may be repeated.",
        "KEY=VALUE",
    ),
    Option(("--source",), FILE, "Keep the digest of the patch, or what it was made from, there.", "FILE"),
)
STRICT = Option(("--strict",), FLAG, "Treat warnings as errors: nothing is written.")
OPTIONS = (
    *NAMING,
    Option(
        ("-o", "--output"),
        OUTPUT_OR_FOLDER,
        "Write here, or into this folder; PAYLOAD stays as it is. Several payloads need a folder.",
        "FILE",
    ),
    Option(("--manifest",), OUTPUT_OR_FOLDER, "Write the manifest here, or into this folder.", "FILE"),
    Option(("--depfile",), OUTPUT, "With -o: write the rule 'FILE: PAYLOAD' for make.", "FILE"),
    Option(("--if-changed",), FLAG, "Leave files alone, and their times, that would be what they are."),
    Option(("--force",), FLAG, "Mangle a payload too that is signed, or has bytes appended."),
    Option(("--embed",), FLAG, "Put the manifest into the payload too, as section .debug_lpmangle."),
    AGAINST,
    Option(
        ("--xen",),
        FILE,
        "For --against: the hypervisor's xen-syms, or a copy of /proc/xen/xensyms; what is there stays.",
        "FILE",
    ),
    Option(("-j", "--jobs"), NUMBER, "Use N processes (default: 1).", "N", default=1),
    Option(("--fail-fast",), FLAG, "Begin no other payload after one that fails."),
    *NOTES,
    STRICT,
    Option(("--dry-run",), FLAG, "Show what would become of each symbol; write nothing."),
    Option(("--json", "as_json"), FLAG, "Report as JSON."),
    Option(("-v", "--verbose"), FLAG, "List the renamed symbols."),
    Option(("-q", "--quiet"), FLAG, "Say nothing but warnings and errors."),
)
