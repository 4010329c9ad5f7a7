"""Paths on the command line: one that cannot be right is refused before any work is done."""

from typing import Any, ClassVar

import click

from lpmangle.cli.commands import refuse_command
from lpmangle.cli.places import check_folder, check_list, check_output, check_payload, check_whole_file
from lpmangle.errors import WordError


class FilePath(click.Path):
    """A path that is not empty, and not `-` unless it may be a log. It is not opened here.

    An empty path is an unset variable in somebody's script, and must not mean the default.
    """

    def __init__(self, *, log: bool = False) -> None:
        super().__init__(readable=False)
        self._log = log

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty", param, ctx)
        path = str(super().convert(value, param, ctx))
        if path == "-" and not self._log:
            raise WordError("is stdin or stdout, not a file", path=path, hint="for a file of that name write ./-")
        self.check(path)
        return path

    def check(self, path: str) -> None:
        """Raise WordError if what is at `path` cannot be right."""


class SourceWord(FilePath):
    """A source of manifests: a path or a URL."""

    def split_envvar_value(self, rv: str) -> list[str]:
        from lpmangle.store.open import split_words  # only for a variable that is set

        return split_words(rv)


class CommandText(click.types.StringParamType):
    """A command with its words; a variable has one on each line."""

    envvar_list_splitter: ClassVar[str] = "\n"


class WholeFilePath(FilePath):
    """The path of a file that is read and replaced as a whole, so not a FIFO or device; it need not exist."""

    def check(self, path: str) -> None:
        check_whole_file(path)


class PayloadFile(FilePath):
    """A payload that an option names; it must exist."""

    def check(self, path: str) -> None:
        check_payload(path)


class PayloadPath(FilePath):
    """A payload where somebody may have meant a command; with `lists` also @FILE, a list of payloads.

    For the default command (`default`), a file that does not exist may be a misspelt command.
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
    """A file to write; with `folders` also a folder to write it to."""

    def __init__(self, *, folders: bool = False) -> None:
        super().__init__()
        self._folders = folders

    def check(self, path: str) -> None:
        check_output(path, folders=self._folders)


class FolderPath(FilePath):
    """A folder to write to; it need not exist, but its parent must."""

    def check(self, path: str) -> None:
        check_folder(path)
