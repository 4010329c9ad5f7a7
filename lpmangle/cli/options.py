"""Options that several commands have: how names are made, and where manifests are."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from lpmangle.cli.complete import suffixes
from lpmangle.cli.mangle_options import (
    CHOICE,
    FILE,
    FLAG,
    NUMBER,
    OUTPUT,
    OUTPUT_OR_FOLDER,
    SOURCES,
    TEXTS,
    Option,
)
from lpmangle.cli.output import shown
from lpmangle.cli.paths import FilePath, OutputPath, SourceWord
from lpmangle.mangle.names import check_naming
from lpmangle.mangle.options import Options, is_note

F = TypeVar("F", bound=Callable[..., Any])

# What click does with the value of an option.
_KINDS: dict[str, dict[str, Any]] = {
    FLAG: {"is_flag": True},
    TEXTS: {"multiple": True},
    NUMBER: {"type": click.IntRange(min=1)},
    FILE: {"type": FilePath()},
    SOURCES: {"type": SourceWord(), "multiple": True},
    OUTPUT: {"type": OutputPath()},
    OUTPUT_OR_FOLDER: {"type": OutputPath(folders=True)},
}
# What a shell offers as its value.
_COMPLETIONS = {"--suffix": suffixes}


def add_options(*options: Option) -> Callable[[F], F]:
    """Decorator: adds options to a command, in that order."""

    def add(command: F) -> F:
        for option in reversed(options):
            settings: dict[str, Any] = {"help": option.help, "metavar": option.metavar, **_KINDS.get(option.kind, {})}
            if option.kind == CHOICE:
                settings["type"] = click.Choice(option.choices)
            if complete := _COMPLETIONS.get(option.names[0]):
                settings["shell_complete"] = complete
            if option.default is not None:
                settings["default"] = option.default
            command = click.option(*option.names, **settings)(command)
        return command

    return add


sources_option = click.option(
    "-m",
    "--manifest",
    "words",
    multiple=True,
    type=FilePath(),
    metavar="SOURCE",
    help="A manifest, a payload or its .debug file, a folder, a catalog or the URL of a debuginfod server; "
    "may be repeated. Default: LPMANGLE_MANIFESTS (separated by colons) and DEBUGINFOD_URLS (by blanks).",
)


def read_options(**given: Any) -> Options:
    """The value of the options that a command has, by their names.

    Raises UsageError, or NamingError for a suffix or template that is wrong for any payload.
    """
    options = Options(**given)
    for word in (options.suffix, options.template, *options.only, *options.keep):
        if not word.isprintable():
            raise click.UsageError(f"{shown(word)!r} is not printable text")
    for word in options.note:
        if not is_note(word):
            raise click.UsageError(f"{shown(word)!r} is not a note: KEY=VALUE, such as XSA=458, in printable text")
    check_naming(options.suffix, options.template)
    return options
