"""Settings: an option that is not on the command line may be in the environment, in a variable of its own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from click.core import ParameterSource

from lpmangle.cli.output import shown
from lpmangle.errors import EXIT_USAGE, LpmangleError

PREFIX = "LPMANGLE"
# They make payloads with the same options, so a vendor sets them once for both.
_MAKERS = ("mangle", "build")
_WORDINESS = ("verbose", "quiet", "as_json")


class Command(click.Command):
    """A command whose options have variables: LPMANGLE_SUFFIX of mangle and build, LPMANGLE_CHECK_XEN of check.

    The command line wins. A value that makes no sense is a usage error that names its variable.
    """

    def __init__(self, name: str, *, settings: str = "", **attributes: Any) -> None:
        """`settings` is the start of the variables' names, if that is not the command's name."""
        super().__init__(name, **attributes)
        prefix = PREFIX if name in _MAKERS else f"{PREFIX}_{settings or name.upper()}"
        for option in self.params:
            # For all commands LPMANGLE_MANIFESTS says where manifests are, after the payload itself.
            if isinstance(option, click.Option) and "-m" not in option.opts:
                option.envvar = f"{prefix}_{_long(option)[2:].upper().replace('-', '_')}"
                option.help = f"{option.help} [env var: {option.envvar}]"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _blamed(ctx, parsing=True):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _blamed(ctx):
            return super().invoke(ctx)


def origin_lines(ctx: click.Context) -> Iterator[str]:
    """Where the value of each option came from that is not the default, except those on how much to print."""
    for option in ctx.command.params:
        source = ctx.get_parameter_source(option.name or "")
        if (
            not isinstance(option, click.Option)
            or option.name in _WORDINESS
            or source in (None, ParameterSource.DEFAULT)
        ):
            continue
        variable = str(option.envvar)
        if source == ParameterSource.ENVIRONMENT:
            where = f"from {variable}"
        else:
            where = "from the command line" + (f", not from {variable}" if os.environ.get(variable) else "")
        yield f"  {shown(_words(option, ctx.params[option.name or '']))} ({where})"


def is_typed(ctx: click.Context, name: str) -> bool:
    """Whether an option, or argument, of that name is on the command line."""
    return ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE


def _long(option: click.Option) -> str:
    return max(option.opts, key=len)


def _words(option: click.Option, value: object) -> str:
    """An option as one would type it."""
    if isinstance(value, bool):
        return _long(option) if value else f"no {_long(option)}"
    values = value if isinstance(value, tuple) else (value,)
    return " ".join(f"{_long(option)} {one}" for one in values)


@contextmanager
def _blamed(ctx: click.Context, *, parsing: bool = False) -> Iterator[None]:
    """Add to usage errors that leave the block the variables that may have caused them."""
    try:
        yield
    except (click.UsageError, LpmangleError) as error:
        variables = _used(ctx)
        if error.exit_code != EXIT_USAGE or not variables:
            raise
        if parsing:
            # click reads the command line first, then the variables, and stops at the one that is wrong.
            variables = variables[-1:]
        elif isinstance(error, LpmangleError) and error.path:
            variables = [one for one in variables if error.path in os.environ[one]]
        for one in variables:
            error.add_note(f"from the environment: {one}={shown(os.environ[one])}")
        raise


def _used(ctx: click.Context) -> list[str]:
    """The variables whose values are used."""
    return [
        str(option.envvar)
        for option in ctx.command.params
        if ctx.get_parameter_source(option.name or "") == ParameterSource.ENVIRONMENT
    ]
