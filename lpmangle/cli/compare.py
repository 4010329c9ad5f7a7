"""lpmangle compare: what changes for a host from one payload to the next."""

import gc

import click

from lpmangle.cli.compare_report import page, record
from lpmangle.cli.output import print_json
from lpmangle.cli.paths import FilePath, OutputPath, PayloadPath, SourceWord
from lpmangle.cli.settings import Command
from lpmangle.errors import EXIT_NO
from lpmangle.jobs.check import state_of
from lpmangle.jobs.compare import compare_in
from lpmangle.jobs.outputs import PAGE, check_report, write_reports
from lpmangle.loader.profile import VENDORS


@click.command(
    "compare",
    cls=Command,
    help="""\b
Examples:
  lpmangle compare 617712b.livepatch fbab204.livepatch
  lpmangle compare --xen xen-syms --json 617712b.livepatch fbab204.livepatch
  lpmangle compare --exit-code rebuilt/fbab204.livepatch shipped/fbab204.livepatch

Say what changes for a host that runs OLD and gets NEW: which functions have changed code, which are
the hypervisor's own again, which variables start anew, what is new and what is gone, and whether
Xen lets NEW replace OLD. Both may be mangled or signed; names are the original ones. Code that only
moved is equal: references are compared by what they lead to. The first line is a summary.
""",
)
@click.argument("old", type=PayloadPath())
@click.argument("new", type=PayloadPath())
@click.option(
    "--xen",
    "xen_path",
    type=FilePath(),
    metavar="FILE",
    help="The hypervisor's xen-syms, or a copy of /proc/xen/xensyms. Without it, what needs it is not checked.",
)
@click.option(
    "--xen-version",
    metavar="VERSION",
    help="The version of Xen whose rules apply. Default: that of xen-syms, else the newest.",
)
@click.option("--vendor", type=click.Choice(VENDORS), help="The vendor, if it is not Xen as released.")
@click.option("-m", "--manifest", "source", type=SourceWord(), metavar="SOURCE", help="Where the manifests are.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if they differ in more than names and places.")
@click.option(
    "--html",
    "html_path",
    type=OutputPath(),
    metavar="FILE",
    help="Write the report, with all that check finds, as one page for a change ticket.",
)
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    old: str,
    new: str,
    xen_path: str | None,
    xen_version: str | None,
    vendor: str | None,
    source: str | None,
    exit_code: bool,
    html_path: str | None,
    as_json: bool,
) -> None:
    if html_path:
        check_report(html_path, PAGE)
    gc.disable()  # a short run, in which nothing makes many cycles
    state = state_of(xen_path, xen_version, vendor)
    found = compare_in(state, old, new, source)
    if html_path:
        from lpmangle.cli import compare_sheet  # here, because of Jinja2

        write_reports([(html_path, compare_sheet.of_comparison(found, old, new, state))])
    if as_json:
        print_json(record(found, old, new, state))
    else:
        for line in page(found, old, new, state):
            click.echo(line)
    if exit_code and found.differs:
        ctx.exit(EXIT_NO)
