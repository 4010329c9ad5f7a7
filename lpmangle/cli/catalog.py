"""lpmangle catalog: the manifests of all shipped payloads in one file."""

import os
import sys
from collections import Counter
from collections.abc import Iterator

import click

from lpmangle.cli.output import print_json, print_table, shown, warn
from lpmangle.cli.paths import FilePath
from lpmangle.errors import EXIT_NO, about
from lpmangle.store import local
from lpmangle.store.catalog import Catalog
from lpmangle.store.source import Found


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


@command.command("add")
@click.argument("catalog", type=FilePath())
@click.argument("paths", nargs=-1, required=True, type=FilePath(), metavar="SOURCE...")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
def add(catalog: str, paths: tuple[str, ...], as_json: bool) -> None:
    """Add manifests: of files, payloads, or folders of either. What is there already stays as it is.

    CATALOG is made if it does not exist. Several processes may add at once.
    """
    with about(catalog):
        opened = Catalog(catalog, write=True)
        results = Counter(opened.add(_texts(paths)))
    if as_json:
        print_json({"catalog": catalog, "added": results[True], "already_there": results[False]})
    else:
        new, old = results[True], results[False]
        added = f"{new} manifest{'s' * (new != 1)} added"
        click.echo(f"{shown(catalog)}: {added}, {old} {'was' if old == 1 else 'were'} there already")


def _texts(paths: tuple[str, ...]) -> Iterator[bytes]:
    """All manifests, one after the other; on a terminal with a progress bar."""
    # What is named is read before anything is added: an error then is an error of the whole command.
    named = {path: _named(path) for path in paths if not os.path.isdir(path)}
    several = (found for path in paths for found in ([named[path]] if path in named else local.in_folder(path)))
    if not sys.stderr.isatty():
        yield from (found.text for found in several)
        return
    count = len(named) + sum(1 for path in paths if path not in named for _ in local.paths_in(path))
    with click.progressbar(length=count, label="adding", file=sys.stderr) as progress:
        for found in several:
            yield found.text
            progress.update(1)


def _named(path: str) -> Found:
    found = local.load(path)
    found.manifest  # noqa: B018
    return found


@command.command("list")
@click.argument("catalog", type=FilePath())
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
def list_(catalog: str, as_json: bool) -> None:
    """List the payloads, in the order in which they were added."""
    entries = Catalog(catalog).entries()
    if as_json:
        print_json([entry._asdict() for entry in entries])
    elif entries:
        rows = [(e.payload, e.build_id or "-", str(e.symbols), e.suffix) for e in entries]
        print_table([("PAYLOAD", "BUILD-ID", "SYMBOLS", "SUFFIX"), *rows])


@command.command("remove")
@click.argument("catalog", type=FilePath())
@click.argument("payloads", nargs=-1, required=True, metavar="PAYLOAD|BUILD-ID...")
@click.pass_context
def remove(ctx: click.Context, catalog: str, payloads: tuple[str, ...]) -> None:
    """Remove the manifests of a payload, by its name or by 7 or more digits of its build-id."""
    with about(catalog):
        opened = Catalog(catalog, write=True, make=False)
        missing = False
        for word in payloads:
            removed = opened.remove(word)
            for entry in removed:
                build_id = shown(entry.build_id or "(none)")
                click.echo(f"{shown(catalog)}: removed {shown(entry.payload)}, build-id {build_id}")
            if not removed:
                warn(catalog, f"has no payload {word}")
                missing = True
    if missing:
        ctx.exit(EXIT_NO)


@command.command("find")
@click.argument("catalog", type=FilePath())
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL...")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
@click.pass_context
def find(ctx: click.Context, catalog: str, symbols: tuple[str, ...], as_json: bool) -> None:
    """Which payloads ever introduced SYMBOL: an old or new name, with or without the part before '#', or a pattern."""
    opened = Catalog(catalog)
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
