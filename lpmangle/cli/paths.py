"""Paths on the command line."""

from typing import Any

import click


class FilePath(click.Path):
    """A path that is not empty; whether it can be read or written shows when it is, with the right exit code.

    An empty one is an unset variable in somebody's script, and must not mean the default.
    """

    def __init__(self) -> None:
        super().__init__(readable=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty", param, ctx)
        return super().convert(value, param, ctx)
