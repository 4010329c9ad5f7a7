"""lpmangle check: what Xen will answer to uploads, before they are made."""

import os

import click

from lpmangle.cli.check_report import is_unfit, print_report, print_signatures, report
from lpmangle.cli.complete import xen_versions
from lpmangle.cli.output import print_json
from lpmangle.cli.paths import FilePath, OutputPath, PayloadFile, PayloadPath
from lpmangle.cli.settings import Command
from lpmangle.errors import EXIT_NO
from lpmangle.jobs import outputs
from lpmangle.jobs.check import check_stacks, put_on, read_uploads, signatures, state_of
from lpmangle.loader import State, Upload, check_sequence
from lpmangle.loader.profile import VENDORS
from lpmangle.verify.signing_key import SignatureAnswer


@click.command(
    "check",
    cls=Command,
    help="""\b
Examples:
  lpmangle check --xen xen-syms one.livepatch two.livepatch
  lpmangle check --xen xensyms.txt --loaded one.livepatch two.livepatch
  lpmangle check --xen xen-syms --stack fleet.txt two.livepatch
  lpmangle check --xen xen-syms --junit check.xml --html check.html *.livepatch

Simulate the upload of PAYLOADs, in the given order, by the rules of Xen's loader. Print for each the
verdict, errno and message of the hypervisor. All findings are listed; the one that Xen reports is
marked with >. A payload that is accepted is then applied; if it depends on the hypervisor itself, it
replaces what is applied. The exit code is 1 if any payload is refused.
""",
)
@click.argument("payloads", nargs=-1, required=True, type=PayloadPath(), metavar="PAYLOAD...")
@click.option(
    "--xen",
    "xen_path",
    type=FilePath(),
    metavar="FILE",
    help="The hypervisor's xen-syms, or a copy of /proc/xen/xensyms. Without it not everything can be checked.",
)
@click.option(
    "--xen-version",
    shell_complete=xen_versions,
    metavar="VERSION",
    help="The version of Xen whose rules apply, such as 4.17 or 4.17.7. Default: that of xen-syms, else the newest.",
)
@click.option(
    "--vendor",
    type=click.Choice(VENDORS),
    help="The vendor, if it is not Xen as released. xenserver, also for XCP-ng: duplicate symbols are printed and "
    "accepted. The hypervisor itself does not say this.",
)
@click.option(
    "--loaded",
    multiple=True,
    type=PayloadFile(),
    metavar="PAYLOAD",
    help="A payload that is loaded and applied already; may be repeated.",
)
@click.option(
    "--stack",
    "stack_path",
    type=FilePath(),
    metavar="FILE",
    help="Check against many hosts: a file that lists what each has loaded, one payload per line and a blank "
    "line between hosts, or as JSON.",
)
@click.option(
    "--junit",
    "junit_path",
    type=OutputPath(),
    metavar="FILE",
    help="Write a JUnit report for CI: a test for each payload, with --stack for each payload and group of "
    "equal stacks.",
)
@click.option(
    "--html",
    "html_path",
    type=OutputPath(),
    metavar="FILE",
    help="Write the report as one page for a change ticket, with --stack as a picture of what each stack accepts.",
)
@click.option(
    "--key",
    type=FilePath(),
    metavar="PUBLIC",
    help="Also check the signatures with this public key (PEM), as a hypervisor that insists on them does. If one is "
    "not valid, the exit code is 1.",
)
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    payloads: tuple[str, ...],
    xen_path: str | None,
    xen_version: str | None,
    vendor: str | None,
    loaded: tuple[str, ...],
    stack_path: str | None,
    junit_path: str | None,
    html_path: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    if stack_path and loaded:
        raise click.UsageError("--stack and --loaded exclude each other: list in the stack file what is loaded")
    _check_places(junit_path, html_path)
    state, uploads = state_of(xen_path, xen_version, vendor), read_uploads(payloads)
    said = signatures(uploads, key)
    unfit = any(map(is_unfit, said))
    if stack_path:
        code = _check_fleet(stack_path, uploads, state, said, junit_path, html_path, as_json)
        if not as_json:
            print_signatures(uploads, said)
        ctx.exit(EXIT_NO if unfit else code)
    put_on(state, loaded)
    verdicts = check_sequence(uploads, state)
    reports = []
    if junit_path:
        from lpmangle.cli import junit  # here, because of xml.etree

        reports.append((junit_path, junit.of_uploads(verdicts, state, said)))
    if html_path:
        from lpmangle.cli import sheet  # here, because of Jinja2

        reports.append((html_path, sheet.of_uploads(verdicts, state, said)))
    outputs.write_reports(reports)
    if as_json:
        print_json(report(verdicts, state, said))
    else:
        print_report(verdicts, state)
        print_signatures(uploads, said)
    if unfit or not all(verdict.good for verdict in verdicts):
        ctx.exit(EXIT_NO)


def _check_fleet(
    path: str,
    uploads: list[Upload],
    state: State,
    said: "list[str | SignatureAnswer]",
    junit_path: str | None,
    html_path: str | None,
    as_json: bool,
) -> int:
    from lpmangle.cli.check_fleet import print_fleet

    rows = check_stacks(path, uploads, state)
    reports = []
    if junit_path:
        from lpmangle.cli import junit

        reports.append((junit_path, junit.of_fleet(rows, uploads, state, said)))
    if html_path:
        from lpmangle.cli import sheet

        reports.append((html_path, sheet.of_fleet(rows, uploads, state, said)))
    outputs.write_reports(reports)
    print_fleet(rows, uploads, state, said, as_json=as_json)
    return 0 if all(cell.good for row in rows for cell in row.cells) else EXIT_NO


def _check_places(junit_path: str | None, html_path: str | None) -> None:
    """Raises UsageError, FileError."""
    if junit_path and html_path and os.path.realpath(junit_path) == os.path.realpath(html_path):
        raise click.UsageError("--junit and --html name the same file")
    if junit_path:
        outputs.check_report(junit_path, outputs.JUNIT)
    if html_path:
        outputs.check_report(html_path, outputs.PAGE)
