"""lpmangle retrace: the original names in a log."""

from typing import Any

import click

from lpmangle.cli.common_retrace import RetraceCall
from lpmangle.cli.options import sources_option
from lpmangle.cli.paths import FilePath
from lpmangle.cli.settings import Command


@click.command(
    "retrace",
    cls=Command,
    help="""\b
Examples:
  xl dmesg | lpmangle retrace -m fbab204.livepatch
  tail -f console.log | lpmangle retrace -m shipped/ --annotate
  lpmangle retrace -m catalog.db --source-lines console.log
  lpmangle retrace -m catalog.db -o readable.log console.log

Copy FILEs, or stdin, to stdout, and replace every mangled symbol by its original. Everything else is
copied byte for byte, line by line as it comes, even if a SOURCE cannot be used. Names that look
mangled but are in no manifest, or are incomplete, are reported on stderr at the end.
""",
)
@click.argument("paths", nargs=-1, type=FilePath(log=True), metavar="[FILE]...")
@sources_option
@click.option("--annotate", is_flag=True, help="Keep the mangled name, in parentheses after the original.")
@click.option(
    "--source-lines",
    is_flag=True,
    help="Add FILE:LINE after SYMBOL+0xOFFSET, found by addr2line in the payload beside the manifest or "
    "from debuginfod.",
)
@click.option(
    "--debug-file",
    "debug_files",
    multiple=True,
    type=FilePath(),
    metavar="FILE",
    help="For --source-lines: where the debug information is, the payload before strip, or a folder with such "
    "*.livepatch or *.debug files; may be repeated.",
)
@click.option(
    "-o",
    "--output",
    type=FilePath(),
    metavar="FILE",
    help="Write to FILE, line by line as the log comes. An existing log is overwritten.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Write an object for each line: its text, and each name that was put back with original, payload, build-id, "
    "and with --source-lines file and line.",
)
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    from lpmangle.cli.retrace_log import put_back  # loads msgspec, which --help does not need

    ctx.exit(put_back(RetraceCall(**given)))
