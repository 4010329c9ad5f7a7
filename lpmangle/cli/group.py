"""The command line as click reads it: help, completion and usage errors; commands are loaded when called."""

import importlib
import io
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from lpmangle.cli.commands import COMMANDS, DEFAULT_COMMAND, HELP, missing_command
from lpmangle.cli.output import forget_stdout, note_lines, print_line, shown
from lpmangle.cli.paths import PayloadPath

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

EXAMPLES = """\
\b
Examples:
  lpmangle fbab204.livepatch                         rename in place; manifest beside it
  lpmangle --suffix name -o out.livepatch in.livepatch
  lpmangle --dry-run fbab204.livepatch               show the new name of every symbol
  lpmangle query _get_fpu -m fbab204.livepatch       new name, section, size
  lpmangle restore fbab204.livepatch                 back to the original
  lpmangle build -- livepatch-build -s xen -p ...    as the last step of livepatch-build
"""


# Only for its own help: what it does is to read `lpmangle help COMMAND` as `lpmangle COMMAND --help`.
_help = click.Command(
    HELP,
    params=[click.Argument(["words"], nargs=-1, metavar="[COMMAND]...")],
    options_metavar="",
    help="""\b
Examples:
  lpmangle help verify
  lpmangle help catalog add

Show the help of COMMAND; without COMMAND, the list of all commands.
""",
)


class _Commands(click.Group):
    """A group whose default command is `mangle`: `lpmangle --suffix name x.livepatch` needs no command word.

    A command is the first word. Anywhere else its name is refused, as is a payload that does not exist
    (`paths.PayloadPath`): neither what was meant as a command nor the files meant for it may be mangled.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[:1] == [HELP]:
            args = self._help_args(ctx, args[1:])
        if args and args[0] not in COMMANDS and args[0] not in ("--help", "-h", "--version"):
            if args[0][:1] not in ("", "-", "@") and not ctx.resilient_parsing:
                # Before click says that the options of a misspelt command do not exist.
                PayloadPath(default=True).check(args[0])
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)

    def _help_args(self, ctx: click.Context, words: list[str]) -> list[str]:
        """What `lpmangle help WORDS` stands for."""
        if ctx.resilient_parsing:  # for completion
            return words
        if words[:1] in ([HELP], ["--help"], ["-h"]):
            click.echo(_help.get_help(click.Context(_help, info_name=HELP, parent=ctx)))
            ctx.exit()
        if words and words[0] not in COMMANDS:
            raise missing_command(words[0])
        return [*words, "--help"]

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader of our output has gone; the work on files was done before anything was printed.
            forget_stdout()
            return 0

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"lpmangle.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """What may be the first word: a command, an option of the default command, a payload."""
        from click.shell_completion import CompletionItem

        mangle = self.get_command(ctx, DEFAULT_COMMAND)
        assert mangle is not None
        own = mangle.make_context(DEFAULT_COMMAND, [], parent=ctx, resilient_parsing=True)
        items = super().shell_complete(ctx, incomplete) + mangle.shell_complete(own, incomplete)
        items += [CompletionItem(HELP)] if HELP.startswith(incomplete) else []
        if incomplete.startswith("@"):
            return PayloadPath(lists=True).shell_complete(ctx, mangle.params[0], incomplete)
        # The file names first: bash's part of click forgets what came before them.
        return items if incomplete.startswith("-") else [CompletionItem(incomplete, type="file"), *items]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        mangle = self.get_command(ctx, DEFAULT_COMMAND)
        assert mangle is not None
        options = [
            record for p in mangle.get_params(ctx) if isinstance(p, click.Option) and (record := p.get_help_record(ctx))
        ]
        with formatter.section("Options of mangle"):
            formatter.write_dl([record for record in options if "--help" not in record[0]])
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items(), (HELP, "Show the help of a command.")])


def _say_version(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from lpmangle.cli.version import version_lines  # nobody else needs it

        print_line(version_lines())
        ctx.exit()


@click.group(
    cls=_Commands,
    help=f"{EXAMPLES}\n\nMake the symbol names of a Xen livepatch payload unique, so that it can be uploaded while"
    " another payload with the same names is loaded. Only names change; a manifest maps them back.",
    subcommand_metavar="[mangle] [OPTIONS] PAYLOAD...  |  COMMAND ...",
    options_metavar="",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_say_version,
    help="Show the versions of lpmangle, Python and LIEF, and the supported versions of Xen.",
)
def cli() -> None:
    pass


def run(words: Sequence[str]) -> int:
    """Do what the words of a command line say; returns the exit code. Raises LpmangleError, OSError, MemoryError."""
    try:
        status: int | None = cli.main(list(words), prog_name="lpmangle", standalone_mode=False)
        return status or 0
    except click.ClickException as error:
        text = io.StringIO()
        error.show(text)
        for line in text.getvalue().expandtabs().splitlines():
            print_line(shown(line), err=True)
        for line in note_lines(error):
            print_line(line, err=True)
        return error.exit_code
    except click.Abort:  # click has ended the line with the terminal's ^C
        return 128 + signal.SIGINT
