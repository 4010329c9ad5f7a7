"""lpmangle catalog: the manifests of all shipped payloads in one file."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

import click

from lpmangle.cli.output import print_json, print_message, print_table, shown, table_lines
from lpmangle.cli.paths import FilePath, FolderPath, OutputPath, WholeFilePath
from lpmangle.cli.settings import Command
from lpmangle.errors import EXIT_NO, EXIT_REFUSED, WordError, about, counted
from lpmangle.jobs.export import export as export_manifests
from lpmangle.manifest.read import Manifest
from lpmangle.store import catalog as catalogs
from lpmangle.store import catalog_writing
from lpmangle.store.contents import contents
from lpmangle.store.source import Found, unrepeated
from lpmangle.system import files


class _CatalogCommands(click.Group):
    """Lists its commands in the order in which one needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    "catalog",
    cls=_CatalogCommands,
    help="""\b
Examples:
  lpmangle catalog add shipped.db build/*.livepatch
  lpmangle catalog find shipped.db _get_fpu
  xl dmesg | lpmangle retrace -m shipped.db
  lpmangle catalog merge shipped.db from-the-other-site.db
  lpmangle catalog export shipped.db -o manifests fbab204

Keep the manifests of all shipped payloads in CATALOG, one SQLite file. query, retrace, restore and
verify look them up there (-m CATALOG).
""",
)
def command() -> None:
    pass


@command.command("add", cls=Command, settings="CATALOG_ADD")
@click.argument("catalog", type=OutputPath())
@click.argument("paths", nargs=-1, required=True, type=FilePath(), metavar="SOURCE...")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
def add(catalog: str, paths: tuple[str, ...], as_json: bool) -> None:
    """Add manifests from files, folders, catalogs or a server.

    SOURCE is a manifest, a payload, a folder of either, another catalog, or a debuginfod server with a build-id
    (URL/buildid/BUILD-ID). A manifest that is already there stays as it is. CATALOG is created if it does not exist.
    Several processes may add at once.
    """
    manifests, most = zip(*(contents(path, catalog) for path in paths), strict=True)
    several = _counted(unrepeated(chain.from_iterable(manifests)), sum(most))
    with about(catalog):
        results = Counter(catalog_writing.add(catalog, several))
    _say_added(catalog, results, as_json)


def _say_added(catalog: str, results: Counter[bool], as_json: bool) -> None:
    if as_json:
        print_json({"catalog": catalog, "added": results[True], "already_there": results[False]})
    else:
        new, old = results[True], results[False]
        added = f"{counted(new, 'manifest')} added"
        click.echo(f"{shown(catalog)}: {added}, {counted(old, 'was', 'were')} there already")


def _counted(several: Iterable[Found], count: int) -> Iterator[Found]:
    if not sys.stderr.isatty():
        yield from several
        return
    with click.progressbar(length=count, label="adding", file=sys.stderr) as progress:
        for found in several:
            yield found
            progress.update(1)


@command.command("merge", cls=Command, settings="CATALOG_MERGE")
@click.argument("catalog", type=OutputPath())
@click.argument("others", nargs=-1, required=True, type=WholeFilePath(), metavar="OTHER...")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
def merge(catalog: str, others: tuple[str, ...], as_json: bool) -> None:
    """Add everything from other catalogs, all or nothing.

    CATALOG is created if it does not exist. The others stay as they are.
    """
    opened = [catalogs.Catalog(other) for other in others]
    place = files.resolve(catalog)
    for other in others:
        if files.resolve(other) == place:
            raise WordError("is the catalog itself", path=other)
    with about(catalog):
        results = Counter(catalog_writing.merge(catalog, opened))
    _say_added(catalog, results, as_json)


@command.command("list", cls=Command, settings="CATALOG_LIST")
@click.argument("catalog", type=WholeFilePath())
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
def list_(catalog: str, as_json: bool) -> None:
    """List the payloads, in the order in which they were added.

    DEPENDS is the build-id of what the payload is put on: the hypervisor, or another payload.
    """
    opened = catalogs.Catalog(catalog)
    entries = opened.entries()
    depends = [opened.head(entry).depends for entry in entries]
    if as_json:
        print_json([_record(*one) for one in zip(entries, depends, strict=True)])
    elif entries:
        rows = [
            (e.payload, e.build_id or "-", below or "-", str(e.symbols), e.suffix)
            for e, below in zip(entries, depends, strict=True)
        ]
        print_table([("PAYLOAD", "BUILD-ID", "DEPENDS", "SYMBOLS", "SUFFIX"), *rows])


def _record(entry: catalogs.Entry, depends: str | None) -> dict[str, str | int | None]:
    return {
        "payload": entry.payload,
        "build_id": entry.build_id,
        "depends": depends,
        "suffix": entry.suffix,
        "symbols": entry.symbols,
    }


@command.command("show", cls=Command, settings="CATALOG_SHOW")
@click.argument("catalog", type=WholeFilePath())
@click.argument("payloads", nargs=-1, required=True, metavar="PAYLOAD|BUILD-ID...")
@click.option("--json", "as_json", is_flag=True, help="Print the manifests, as a list.")
@click.pass_context
def show(ctx: click.Context, catalog: str, payloads: tuple[str, ...], as_json: bool) -> None:
    """Show everything that the manifests say about payloads.

    A payload is given by its name, or by 7 or more digits of its build-id.
    """
    opened = catalogs.Catalog(catalog)
    named = opened.named(payloads)
    several = [opened.found(entry) for entry in dict.fromkeys(chain.from_iterable(named.values()))]
    manifests = [found.manifest for found in several]  # a damaged one is an error before anything is printed
    if as_json:
        print_json([json.loads(found.text) for found in several])
    else:
        for number, manifest in enumerate(manifests):
            _show(manifest, first=number == 0)
    if not all(named.values()):
        _warn_of_missing(catalog, named)
        ctx.exit(EXIT_NO)


def _warn_of_missing(catalog: str, named: dict[str, list[catalogs.Entry]], done: str = "") -> None:
    for word in (word for word, entries in named.items() if not entries):
        print_message(catalog, f"has no payload {word}{done}")


def _show(manifest: Manifest, *, first: bool) -> None:
    options = manifest.options
    typed = [f"--suffix {options.suffix} --template {options.template} --scope {options.scope}"]
    typed += [f"--only {glob}" for glob in options.only] + [f"--keep {glob}" for glob in options.keep]
    rows = [
        ("build-id", manifest.build_id or "(none)"),
        ("depends", manifest.depends or "(none)"),
        ("xen-depends", manifest.xen_depends or "(none)"),
        ("machine", manifest.machine),
        ("suffix", manifest.suffix),
        ("options", " ".join(typed)),
        ("original", f"sha256 {manifest.input.sha256}, {counted(manifest.input.size, 'byte')}"),
        ("mangled", f"sha256 {manifest.output.sha256}, {counted(manifest.output.size, 'byte')}"),
        *(("note", f"{note.key}={note.value}") for note in manifest.notes),
        *([("source", f"sha256 {manifest.source.sha256}")] if manifest.source else []),
        *(("put on", f"{below.payload}, build-id {below.build_id}") for below in manifest.against),
        *(("kept", name) for name in manifest.kept),
    ]
    if not first:
        click.echo()
    click.echo(shown(manifest.payload))
    for key, value in rows:
        click.echo(f"  {key:11}  {shown(value)}")
    for names in (manifest.symbols, manifest.borrowed):
        if names:
            heading = ("SYMBOL", "NEW NAME") if names is manifest.symbols else ("NAME OF A PAYLOAD BELOW", "NEW NAME")
            for line in table_lines([heading, *((one.original, one.name) for one in names)]):
                click.echo(f"  {line}")


@command.command("export", cls=Command, settings="CATALOG_EXPORT")
@click.argument("catalog", type=WholeFilePath())
@click.argument("payloads", nargs=-1, metavar="[PAYLOAD|BUILD-ID]...")
@click.option(
    "-o", "--output", "folder", required=True, type=FolderPath(), metavar="FOLDER", help="Write the manifests here."
)
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
@click.pass_context
def export(ctx: click.Context, catalog: str, payloads: tuple[str, ...], folder: str, as_json: bool) -> None:
    """Write manifests to files, byte for byte as they were added.

    Without payloads, all manifests. All files are written, or none. FOLDER is created if it does not exist; existing
    files are never replaced.
    """
    opened = catalogs.Catalog(catalog)
    entries = opened.entries()
    if payloads:
        named = opened.named(payloads)
        if not all(named.values()):
            _warn_of_missing(catalog, named, "; nothing was written")
            ctx.exit(EXIT_NO)
        entries = list(dict.fromkeys(chain.from_iterable(named.values())))
    paths = export_manifests(opened, entries, folder)
    if as_json:
        print_json({"catalog": catalog, "manifests": paths})
    else:
        click.echo(f"{shown(folder)}: {counted(len(paths), 'manifest')}")


def _rows(entries: list[catalogs.Entry]) -> list[tuple[str, ...]]:
    rows = [(e.payload, e.build_id or "-", str(e.symbols), e.suffix) for e in entries]
    return [("PAYLOAD", "BUILD-ID", "SYMBOLS", "SUFFIX"), *rows]


@command.command("remove", cls=Command, settings="CATALOG_REMOVE")
@click.argument("catalog", type=WholeFilePath())
@click.argument("payloads", nargs=-1, required=True, metavar="PAYLOAD|BUILD-ID...")
@click.option("--all", "every", is_flag=True, help="Remove all payloads of that name, not only one.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
@click.pass_context
def remove(ctx: click.Context, catalog: str, payloads: tuple[str, ...], every: bool, as_json: bool) -> None:
    """Remove payloads and their manifests.

    A payload is given by its name, or by 7 or more digits of its build-id. Nothing is removed if one of the words fits
    no payload, or fits several and --all is not given.
    """
    with about(catalog):
        found = catalog_writing.remove(catalogs.Catalog(catalog), payloads, every=every)
    status = 0
    for word, entries in found.items():
        if not entries:
            print_message(catalog, f"has no payload {word}; nothing was removed")
            status = max(status, EXIT_NO)
        elif not every and catalogs.are_several(entries):
            print_message(catalog, f"has {len(entries)} payloads {word}; nothing was removed:")
            for line in table_lines(_rows(entries)):
                click.echo(f"  {line}", err=True)
            click.echo("  hint: name one by its build-id, or remove them all with --all", err=True)
            status = EXIT_REFUSED
    removed = [] if status else list(dict.fromkeys(chain.from_iterable(found.values())))
    if as_json:
        records = [{"payload": entry.payload, "build_id": entry.build_id} for entry in removed]
        print_json({"catalog": catalog, "removed": records})
    for entry in removed if not as_json else ():
        build_id = shown(entry.build_id or "(none)")
        click.echo(f"{shown(catalog)}: removed {shown(entry.payload)}, build-id {build_id}")
    ctx.exit(status)


@command.command("find", cls=Command, settings="CATALOG_FIND")
@click.argument("catalog", type=WholeFilePath())
@click.argument("symbols", nargs=-1, metavar="[SYMBOL]...")
@click.option(
    "--note",
    "notes",
    multiple=True,
    metavar="KEY[=VALUE]",
    help="Only payloads with this note; if repeated, with all of them. Without SYMBOL, list these payloads.",
)
@click.option("--json", "as_json", is_flag=True, help="Report as JSON.")
@click.pass_context
def find(ctx: click.Context, catalog: str, symbols: tuple[str, ...], notes: tuple[str, ...], as_json: bool) -> None:
    """Say which payloads introduced SYMBOL.

    SYMBOL is an old or new name, with or without the part before '#', or a shell pattern. With --note, say which
    payloads have a note: --note XSA=458 finds those with that fix.
    """
    if not symbols and not notes:
        raise click.UsageError("name a SYMBOL or a --note")
    opened = catalogs.Catalog(catalog)
    noted = _noted(opened, notes) if notes else None
    if noted is not None and not symbols:
        _print_noted(ctx, catalog, notes, noted, as_json)
        return
    missing = []
    matches = []
    for pattern in symbols:
        found = [*opened.find(pattern)]
        if noted is not None:
            known = {(entry.payload, entry.build_id) for entry, _ in noted}
            found = [match for match in found if (match.payload, match.build_id) in known]
        matches += found
        if not found:
            missing.append(pattern)
    if as_json:
        print_json({"matches": [match._asdict() for match in matches], "not_found": missing})
    elif matches:
        rows = [(m.payload, m.build_id or "-", m.original, m.name) for m in matches]
        print_table([("PAYLOAD", "BUILD-ID", "SYMBOL", "NEW NAME"), *rows])
    for pattern in missing if not as_json else ():
        print_message(catalog, f"no payload introduced {pattern}")
    if missing:
        ctx.exit(EXIT_NO)


def _noted(opened: catalogs.Catalog, wanted: tuple[str, ...]) -> list[tuple[catalogs.Entry, list[str]]]:
    """The payloads that have all these notes, KEY=VALUE or KEY alone, and what notes they have."""
    found = []
    for entry in opened.entries():
        notes = [(note.key, f"{note.key}={note.value}") for note in opened.head(entry).notes]
        if all(any(word in note for note in notes) for word in wanted):
            found.append((entry, [words for _, words in notes]))
    return found


def _print_noted(
    ctx: click.Context,
    catalog: str,
    wanted: tuple[str, ...],
    noted: list[tuple[catalogs.Entry, list[str]]],
    as_json: bool,
) -> None:
    if as_json:
        payloads = [{"payload": e.payload, "build_id": e.build_id, "notes": notes} for e, notes in noted]
        print_json({"payloads": payloads})
    elif noted:
        rows = [(entry.payload, entry.build_id or "-", ", ".join(notes)) for entry, notes in noted]
        print_table([("PAYLOAD", "BUILD-ID", "NOTES"), *rows])
    if not noted:
        if not as_json:
            print_message(catalog, f"no payload has the note {' and '.join(wanted)}")
        ctx.exit(EXIT_NO)
