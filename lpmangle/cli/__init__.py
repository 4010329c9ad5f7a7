"""The command line: commands are loaded when called, errors become words and exit codes here and nowhere else."""

import gc
import importlib
import io
import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from lpmangle import __version__
from lpmangle.cli.output import error_lines, shown
from lpmangle.errors import LpmangleError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

DEFAULT_COMMAND = "mangle"
# name -> what it does; the module is lpmangle.cli.<name>. Said here so that --help need not load every command.
COMMANDS = {
    "mangle": "Make the names of a payload's new symbols unique (the default command).",
    "query": "Find the original name of a symbol, or the new one.",
    "retrace": "Put the original names back into a console log.",
    "catalog": "Keep the manifests of all shipped payloads in one file.",
    "restore": "Turn a mangled payload back into the original, byte for byte.",
    "check": "Say before an upload what Xen will say to it.",
    "verify": "Check that a payload and its manifest agree and only names differ.",
    "build": "Run livepatch-build, or any command, and mangle the payload that it makes.",
}
EXAMPLES = """\
\b
Examples:
  lpmangle fbab204.livepatch                         rename in place; manifest beside it
  lpmangle --suffix name -o out.livepatch in.livepatch
  lpmangle --dry-run fbab204.livepatch               show every symbol and what becomes of it
  lpmangle query _get_fpu -m fbab204.livepatch       new name, section, size
  lpmangle restore fbab204.livepatch                 the original again
  lpmangle build -- livepatch-build -s xen -p ...    as the last step of livepatch-build
"""


class _Commands(click.Group):
    """A group whose default command is `mangle`: `lpmangle --suffix name x.livepatch` needs no command word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in COMMANDS and args[0] not in ("--help", "-h", "--version"):
            if not args[0].startswith("-") and not os.path.lexists(args[0]) and not ctx.resilient_parsing:
                _refuse_misspelt(args[0], ctx)
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader of our output has gone; the work on files was done before the first word.
            _forget_output()
            return 0

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"lpmangle.cli.{cmd_name}")
        gc.enable()
        command: click.Command = module.command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """What may stand first: a command, an option of the default command, a payload."""
        from click.shell_completion import CompletionItem

        mangle = self.get_command(ctx, DEFAULT_COMMAND)
        assert mangle is not None
        own = mangle.make_context(DEFAULT_COMMAND, [], parent=ctx, resilient_parsing=True)
        items = super().shell_complete(ctx, incomplete) + mangle.shell_complete(own, incomplete)
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
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_Commands,
    help=f"{EXAMPLES}\n\nMake the symbol names of a Xen livepatch payload unique, so that it can be uploaded while"
    " another payload with the same names is loaded. Only names change; a manifest maps them back.",
    subcommand_metavar="[mangle] [OPTIONS] PAYLOAD...  |  COMMAND ...",
    options_metavar="",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    pass


def _refuse_misspelt(word: str, ctx: click.Context) -> None:
    """Before the payloads behind a misspelt command are mangled."""
    import difflib

    if close := difflib.get_close_matches(word, COMMANDS, n=1):
        raise click.UsageError(f"no file and no command {word!r}; is {close[0]!r} meant?", ctx)


def main() -> NoReturn:
    """Entry point of the console script."""
    # Leave through Python, so that temporary files are removed.
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup wants it
            signal.signal(number, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a name shows it escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        status = cli.main(prog_name="lpmangle", standalone_mode=False)
    except click.ClickException as error:
        words = io.StringIO()
        error.show(words)
        for line in words.getvalue().expandtabs().splitlines():
            click.echo(shown(line), err=True)
        status = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        status = 128 + signal.SIGINT
    except (LpmangleError, OSError, MemoryError) as error:
        lines, status = error_lines(error)
        if isinstance(error, OSError) and not error.filename:
            _forget_output()
        for line in lines:
            click.echo(line, err=True)
    if "lief" not in sys.modules:  # whose own exit needs the collector
        gc.freeze()  # the process ends here: a last search for garbage is a tenth of a short run
    sys.exit(status)


def _forget_output() -> None:
    """What could not be printed shall not be tried again by Python at its exit, which would be another exit code."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
