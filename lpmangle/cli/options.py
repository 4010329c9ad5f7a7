"""Options that several commands have: how names are made, and where manifests are."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from lpmangle.cli.output import shown
from lpmangle.cli.paths import FilePath, SourceWord
from lpmangle.mangle.names import DEFAULT_SUFFIX, DEFAULT_TEMPLATE, check_naming
from lpmangle.mangle.options import SCOPES, Options

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--suffix",
        default=DEFAULT_SUFFIX,
        metavar="SPEC",
        help="What makes the names unique: buildid (default), buildid:N (its first N digits, N >= 7), "
        "name (the payload's file name without its ending), text:STRING.",
    ),
    click.option(
        "--template",
        default=DEFAULT_TEMPLATE,
        metavar="TEMPLATE",
        help="How a new name is made of {symbol} (or {file} and {name}: what stands before and after the "
        f"last '#') and {{suffix}}. Default: {DEFAULT_TEMPLATE}",
    ),
    click.option(
        "--scope",
        type=click.Choice(SCOPES),
        default="local",
        help="Which new symbols: the LOCAL ones (default), or all (new), GLOBAL and WEAK too.",
    ),
    click.option("--only", multiple=True, metavar="GLOB", help="Rename only symbols that fit; may be repeated."),
    click.option("--keep", multiple=True, metavar="GLOB", help="Leave symbols that fit alone; may be repeated."),
)


against_option = click.option(
    "--against",
    multiple=True,
    type=SourceWord(),
    metavar="SOURCE",
    help="A mangled payload (or its manifest) that PAYLOAD is put on, or a catalog, folder or URL of a debuginfod "
    "server that has it and those below it: names taken from them become what they are there. May be repeated.",
)


strict_option = click.option("--strict", is_flag=True, help="Treat warnings as errors: nothing is written.")


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


def naming_options(command: F) -> F:
    """Decorator: adds --suffix, --template, --scope, --only and --keep."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_options(**given: Any) -> Options:
    """The value of the options that a command has, by their names.

    Raises UsageError, or NamingError for a suffix or template that is wrong for any payload.
    """
    options = Options(**given)
    for word in (options.suffix, options.template, *options.only, *options.keep):
        if not word.isprintable():
            raise click.UsageError(f"{shown(word)!r} is not printable text")
    check_naming(options.suffix, options.template)
    return options
