"""lpmangle catalog: the manifests of all shipped payloads in one file."""

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

import click

from lpmangle.cli.output import print_json, print_table, shown, table_lines, warn
from lpmangle.cli.paths import FilePath, OutputPath, WholeFilePath
from lpmangle.cli.settings import Command
from lpmangle.errors import EXIT_NO, EXIT_REFUSED, NoManifestError, about, counted
from lpmangle.store import catalog as catalogs
from lpmangle.store import local
from lpmangle.store.source import Found, unrepeated


class _Commands(click.Group):
    """Its commands in the order in which one needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    "catalog",
    cls=_Commands,
    help="""\b
Examples:
  lpmangle catalog add shipped.db build/*.livepatch
  lpmangle catalog find shipped.db _get_fpu
  xl dmesg | lpmangle retrace -m shipped.db

Keep the manifests of all shipped payloads in CATALOG, one SQLite file, to look them up in with
query, retrace, restore and verify (-m CATALOG).
""",
)
def command() -> None:
    pass


@command.command("add", cls=Command, settings="CATALOG_ADD")
@click.argument("catalog", type=OutputPath())
@click.argument("paths", nargs=-1, required=True, type=FilePath(), metavar="SOURCE...")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
def add(catalog: str, paths: tuple[str, ...], as_json: bool) -> None:
    """Add manifests: of files, payloads, or folders of either. What is there already stays as it is.

    CATALOG is made if it does not exist. Several processes may add at once.
    """
    several = _manifests(paths)
    with about(catalog):
        results = Counter(catalogs.add(catalog, several))
    if as_json:
        print_json({"catalog": catalog, "added": results[True], "already_there": results[False]})
    else:
        new, old = results[True], results[False]
        added = f"{counted(new, 'manifest')} added"
        click.echo(f"{shown(catalog)}: {added}, {counted(old, 'was', 'were')} there already")


def _manifests(paths: tuple[str, ...]) -> Iterator[Found]:
    """All manifests, each once, on a terminal with a progress bar.

    What is named is read at once, and of each folder the first manifest: what is wrong with these is an error before
    anything is done.
    """
    several: list[Iterable[Found]] = []
    count = 0
    for path in paths:
        if not os.path.isdir(path):
            found = local.load(path)
            found.manifest  # noqa: B018
            several.append([found])
            count += 1
            continue
        listed = list(local.paths_in(path))
        sound = filter(None, map(local.sound, listed))
        first = next(sound, None)
        if first is None:
            raise NoManifestError("there is no manifest in this folder, and no payload with one inside", path=path)
        several.append(chain([first], sound))
        count += len(listed)
    return _counted(unrepeated(chain.from_iterable(several)), count)


def _counted(several: Iterable[Found], count: int) -> Iterator[Found]:
    if not sys.stderr.isatty():
        yield from several
        return
    with click.progressbar(length=count, label="adding", file=sys.stderr) as progress:
        for found in several:
            yield found
            progress.update(1)


@command.command("list", cls=Command, settings="CATALOG_LIST")
@click.argument("catalog", type=WholeFilePath())
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
def list_(catalog: str, as_json: bool) -> None:
    """List the payloads, in the order in which they were added."""
    entries = catalogs.Catalog(catalog).entries()
    if as_json:
        print_json([entry._asdict() for entry in entries])
    elif entries:
        print_table(_rows(entries))


def _rows(entries: list[catalogs.Entry]) -> list[tuple[str, ...]]:
    rows = [(e.payload, e.build_id or "-", str(e.symbols), e.suffix) for e in entries]
    return [("PAYLOAD", "BUILD-ID", "SYMBOLS", "SUFFIX"), *rows]


@command.command("remove", cls=Command, settings="CATALOG_REMOVE")
@click.argument("catalog", type=WholeFilePath())
@click.argument("payloads", nargs=-1, required=True, metavar="PAYLOAD|BUILD-ID...")
@click.option("--all", "every", is_flag=True, help="Remove all payloads that have a name, not only one.")
@click.pass_context
def remove(ctx: click.Context, catalog: str, payloads: tuple[str, ...], every: bool) -> None:
    """Remove payloads, each by its name or by 7 or more digits of its build-id.

    Nothing is removed if one of the words names no payload, or several without --all.
    """
    with about(catalog):
        found = catalogs.Catalog(catalog).remove(payloads, every=every)
    status = 0
    for word, entries in found.items():
        if not entries:
            warn(catalog, f"has no payload {word}; nothing was removed")
            status = max(status, EXIT_NO)
        elif not every and catalogs.are_several(entries):
            warn(catalog, f"has {len(entries)} payloads {word}; nothing was removed:")
            for line in table_lines(_rows(entries)):
                click.echo(f"  {line}", err=True)
            click.echo("  hint: name one by its build-id, or remove them all with --all", err=True)
            status = EXIT_REFUSED
    if status:
        ctx.exit(status)
    for entry in dict.fromkeys(chain.from_iterable(found.values())):
        build_id = shown(entry.build_id or "(none)")
        click.echo(f"{shown(catalog)}: removed {shown(entry.payload)}, build-id {build_id}")


@command.command("find", cls=Command, settings="CATALOG_FIND")
@click.argument("catalog", type=WholeFilePath())
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL...")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
@click.pass_context
def find(ctx: click.Context, catalog: str, symbols: tuple[str, ...], as_json: bool) -> None:
    """Which payloads ever introduced SYMBOL: an old or new name, with or without the part before '#', or a pattern."""
    opened = catalogs.Catalog(catalog)
    missing = []
    matches = []
    for pattern in symbols:
        found = [*opened.find(pattern)]
        matches += found
        if not found:
            missing.append(pattern)
    if as_json:
        print_json({"matches": [match._asdict() for match in matches], "not_found": missing})
    elif matches:
        rows = [(m.payload, m.build_id or "-", m.original, m.name) for m in matches]
        print_table([("PAYLOAD", "BUILD-ID", "SYMBOL", "NEW NAME"), *rows])
    for pattern in missing if not as_json else ():
        warn(catalog, f"no payload introduced {pattern}")
    if missing:
        ctx.exit(EXIT_NO)
