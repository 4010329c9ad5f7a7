"""The names of the commands, and when a word on the command line is one."""

from lpmangle.errors import WordError

DEFAULT_COMMAND = "mangle"
# name -> what it does; the module is lpmangle.cli.<name>. Said here so that --help need not load every command.
COMMANDS = {
    "mangle": "Make the names of a payload's new symbols unique (the default command).",
    "show": "Say what a payload is and does.",
    "compare": "Say what changes for a host from one payload to the next.",
    "query": "Find the original name of a symbol, or the new one.",
    "retrace": "Put the original names back into a console log.",
    "catalog": "Keep the manifests of all shipped payloads in one file.",
    "restore": "Turn a mangled payload back into the original, byte for byte.",
    "check": "Say before an upload what Xen will say to it.",
    "verify": "Check that a payload and its manifest agree and only names differ.",
    "build": "Run livepatch-build, or any command, and mangle the payload that it makes.",
}
HELP = "help"  # lpmangle help COMMAND: COMMAND --help


def refuse_command(word: str) -> None:
    """Raise WordError if `word`, which stands where a payload should, is a command's name.

    A command stands first, before its options. A file of that name is called with its folder, such as ./verify.
    """
    if word in COMMANDS or word == HELP:
        raise WordError(
            "is a command, which stands first: lpmangle " + word,
            path=word,
            hint=f"a file of that name is ./{word}",
        )


def missing_payload(word: str) -> WordError:
    """What to say about a payload that does not exist: it may be a misspelt command."""
    if not (word.isascii() and word.isalpha()):
        return WordError("there is no such file", path=word)
    close = _nearest(word)
    hint = f"is {close!r} meant? A command stands first: lpmangle {close} ..." if close else ""
    return WordError("is no file and no command", path=word, hint=hint or "lpmangle --help lists the commands")


def missing_command(word: str) -> WordError:
    """What to say about a word that should be a command and is none."""
    close = _nearest(word)
    hint = f"is {close!r} meant?" if close else "lpmangle --help lists the commands"
    return WordError("is no command", path=word, hint=hint)


def _nearest(word: str) -> str:
    from difflib import get_close_matches  # only for an error

    return next(iter(get_close_matches(word.lower(), [*COMMANDS, HELP], n=1)), "")
