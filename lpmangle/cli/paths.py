"""Paths on the command line: one that makes no sense is refused before any work is done."""

from typing import Any, ClassVar

import click

from lpmangle.cli.commands import refuse_command
from lpmangle.cli.places import check_folder, check_list, check_output, check_payload, check_whole_file
from lpmangle.errors import WordError


class FilePath(click.Path):
    """A path that is not empty, nor - if it is not to be a log; whether it can be read shows when it is.

    An empty one is an unset variable in somebody's script, and must not mean the default.
    """

    def __init__(self, *, log: bool = False) -> None:
        super().__init__(readable=False)
        self._log = log

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty", param, ctx)
        path = str(super().convert(value, param, ctx))
        if path == "-" and not self._log:
            raise WordError("is stdin or stdout, not a file", path=path, hint="a file of that name is ./-")
        self.check(path)
        return path

    def check(self, path: str) -> None:
        """Raise WordError if what is at `path` cannot be meant."""


class SourceWord(FilePath):
    """A source of manifests: a path or a URL."""

    def split_envvar_value(self, rv: str) -> list[str]:
        from lpmangle.store.open import split_words  # only for a variable that is set

        return split_words(rv)


class CommandText(click.types.StringParamType):
    """A command with its words; a variable has one on each line."""

    envvar_list_splitter: ClassVar[str] = "\n"


class WholeFilePath(FilePath):
    """The path of a file that is read and replaced as a whole, so no FIFO or device; there may be nothing yet."""

    def check(self, path: str) -> None:
        check_whole_file(path)


class PayloadFile(FilePath):
    """A payload that an option names; it must be there."""

    def check(self, path: str) -> None:
        check_payload(path)


class PayloadPath(FilePath):
    """A payload where somebody may have meant a command; with `lists` also @FILE, which stands for several.

    Of the command that needs no word (`default`) one that is not there may be a misspelt command.
    """

    def __init__(self, *, lists: bool = False, default: bool = False) -> None:
        super().__init__()
        self._lists = lists
        self._default = default

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[click.shell_completion.CompletionItem]":
        if self._lists and incomplete.startswith("@"):
            from lpmangle.cli.complete import list_files  # only for shells

            return list_files(incomplete)
        return super().shell_complete(ctx, param, incomplete)

    def check(self, path: str) -> None:
        if self._lists and path.startswith("@"):
            check_list(path)
        else:
            refuse_command(path)
            check_payload(path, or_command=self._default)


class OutputPath(FilePath):
    """Where a file is to be written; with `folders` also a folder to write it to."""

    def __init__(self, *, folders: bool = False) -> None:
        super().__init__()
        self._folders = folders

    def check(self, path: str) -> None:
        check_output(path, folders=self._folders)


class FolderPath(FilePath):
    """A folder to write to; there may be none yet, but there is one to make it in."""

    def check(self, path: str) -> None:
        check_folder(path)
