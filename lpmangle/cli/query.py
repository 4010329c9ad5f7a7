"""lpmangle query: names in either direction."""

import click

from lpmangle.cli.common_query import FORMATS, JSON, TEXT
from lpmangle.cli.options import sources_option
from lpmangle.cli.settings import Command


@click.command(
    "query",
    cls=Command,
    help="""\b
Examples:
  lpmangle query _get_fpu -m fbab204.livepatch
  lpmangle query 'x86_emulate.c#*' -m fbab204.livepatch.manifest.json --json
  lpmangle query 'x86_emulate.c#_get_fpu_d6068854...+0x32/0x3e [fbab204]' -m shipped/ -m catalog.db
  lpmangle query '*' -m fbab204.livepatch --format objcopy >names; objcopy @names fbab204.livepatch

Look up SYMBOLs by old or new name, with or without the part before '#'. A SYMBOL may be a shell
pattern, or text from a trace or gdb, with an offset. All matches are shown; if the name of a payload
follows in brackets, only those of that payload. The exit code is 1 if a SYMBOL has no match.
""",
)
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL...")
@sources_option
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default=TEXT,
    help="text (default), json, or objcopy: the arguments with which objcopy restores the original names.",
)
@click.option("--json", "as_json", is_flag=True, help="Same as --format json.")
@click.pass_context
def command(ctx: click.Context, symbols: tuple[str, ...], words: tuple[str, ...], form: str, as_json: bool) -> None:
    from lpmangle.cli.query_answer import answer  # loads msgspec, which --help does not need

    ctx.exit(answer(symbols, words, JSON if as_json else form))
