"""Words of the command line as far as they need no click.

The names of the commands; what to say about a word that is in the wrong place or misspelt; how the common calls read
theirs. These read only what is certainly right. For everything else the answer is None, and click reads the words
again: it alone prints help and errors.
"""

from lpmangle.errors import WordError
from lpmangle.system.light import Container, Iterable, Sequence

DEFAULT_COMMAND = "mangle"
QUERY = "query"
RETRACE = "retrace"
# name -> what it does; the module is lpmangle.cli.<name>. They are here so that --help need not load every command.
COMMANDS = {
    "mangle": "Make the names of a payload's new symbols unique (the default command).",
    "show": "Say what a payload is and does.",
    "compare": "Say what changes for a host from one payload to the next.",
    QUERY: "Find the original name of a symbol, or its new name.",
    RETRACE: "Put the original names back into a console log.",
    "catalog": "Keep the manifests of all shipped payloads in one file.",
    "restore": "Turn a mangled payload back into the original, byte for byte.",
    "check": "Say what Xen will answer to an upload, before it is made.",
    "verify": "Check that a payload and its manifest agree and only names differ.",
    "build": "Run livepatch-build, or any command, and mangle the payload that it builds.",
}
HELP = "help"  # lpmangle help COMMAND: COMMAND --help
# The option of query and retrace that names a source of manifests, and its variable, which is not a setting of these
# commands (`store.open`).
SOURCE_OPTION, SOURCE_VARIABLE = ("-m", "--manifest"), "LPMANGLE_MANIFESTS"
# Environment variables that begin like this are click's: settings, and completion for a shell.
_VARIABLES = ("LPMANGLE_", "_LPMANGLE_")


def refuse_command(word: str) -> None:
    """Raise WordError if `word`, where a payload is expected, is the name of a command.

    A command is the first word, before its options. A file of that name is given with its folder, such as ./verify.
    """
    if word in COMMANDS or word == HELP:
        raise WordError(
            f"is a command, and a command comes first: lpmangle {word}",
            path=word,
            hint=f"for a file of that name write ./{word}",
        )


def missing_payload(word: str) -> WordError:
    """What to say about a payload that does not exist: it may be a misspelt command."""
    if not (word.isascii() and word.isalpha()):
        return WordError("there is no such file", path=word)
    close = _nearest(word)
    hint = f"did you mean {close!r}? A command comes first: lpmangle {close} ..." if close else ""
    return WordError("is neither a file nor a command", path=word, hint=hint or "lpmangle --help lists the commands")


def missing_command(word: str) -> WordError:
    """What to say about a word that should be a command but is not."""
    close = _nearest(word)
    hint = f"did you mean {close!r}?" if close else "lpmangle --help lists the commands"
    return WordError("is not a command", path=word, hint=hint)


def _nearest(word: str) -> str:
    from difflib import get_close_matches  # only for an error

    return next(iter(get_close_matches(word.lower(), [*COMMANDS, HELP], n=1)), "")


def are_plain(words: Sequence[str], environment: Iterable[str], apart: Container[str] = ()) -> bool:
    """Whether only the words count, and all are plain; `environment` has the names of the variables.

    Those in `apart` are not settings.
    """
    settings = (name for name in environment if name.startswith(_VARIABLES) and name not in apart)
    return not any(settings) and all(map(str.isprintable, words))


def split(
    words: Sequence[str], flags: Container[str], valued: Container[str]
) -> tuple[list[str], list[tuple[str, str]]] | None:
    """The arguments, and the options in their order, each with its value; that of a flag is empty.

    `flags` and `valued` are the names of the options, as typed.
    """
    arguments: list[str] = []
    options: list[tuple[str, str]] = []
    waiting = list(reversed(words))
    while waiting:
        word = waiting.pop()
        if not word.startswith("-"):
            arguments.append(word)
            continue
        if word in flags:
            options.append((word, ""))
            continue
        name, equals, value = word.partition("=")
        if name not in valued or (equals and not name.startswith("--")):
            return None
        if not equals:
            value = waiting.pop() if waiting else ""
        if not value or value.startswith("-"):
            return None
        options.append((name, value))
    return (arguments, options) if all(arguments) else None


def values(options: Iterable[tuple[str, str]], *names: str) -> tuple[str, ...]:
    """The values of the option with these names, in their order."""
    return tuple([value for name, value in options if name in names])
