"""lpmangle query: names in either direction."""

import re
from typing import Any

import click

from lpmangle.cli.options import sources_option
from lpmangle.cli.output import print_exact, print_json, shown
from lpmangle.cli.settings import Command
from lpmangle.errors import EXIT_NO, counted
from lpmangle.jobs.query import query
from lpmangle.manifest.read import FunctionNameRecord, Manifest, ReferenceRecord, SymbolRecord
from lpmangle.manifest.search import file_of
from lpmangle.store.open import has_servers

FORMATS = ("text", "json", "objcopy")
_BUILD_ID = re.compile("[0-9a-f]{16}")  # long enough to be one


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
    default="text",
    help="text (default), json, or objcopy: the arguments with which objcopy restores the original names.",
)
@click.option("--json", "as_json", is_flag=True, help="Same as --format json.")
@click.pass_context
def command(ctx: click.Context, symbols: tuple[str, ...], words: tuple[str, ...], form: str, as_json: bool) -> None:
    matches, borrowed, missing = query(symbols, words)
    if as_json or form == "json":
        records = [_record(*match) for match in matches]
        print_json(
            {"matches": records, "borrowed": [_borrowed_record(*match) for match in borrowed], "not_found": missing}
        )
    elif form == "objcopy":
        named: list[SymbolRecord | ReferenceRecord] = [symbol for _, symbol in matches]
        named += [entry for _, entry in borrowed if isinstance(entry, ReferenceRecord)]
        for line in dict.fromkeys(map(_objcopy, named)):
            print_exact(line)
    else:
        for match in matches:
            _print(*match)
        for manifest, entry in borrowed:
            _print_borrowed(manifest, entry)
    for pattern in missing if not as_json and form != "json" else ():
        click.echo(f"lpmangle: {shown(pattern)}: not in any manifest that was found", err=True)
        if has_servers(words) and not _BUILD_ID.search(pattern):
            hint = "a server can only be asked by build-id: give the full new name, which contains it"
            click.echo(f"  hint: {hint}", err=True)
    if missing:
        ctx.exit(EXIT_NO)


def _objcopy(symbol: SymbolRecord | ReferenceRecord) -> str:
    """An argument in a response file (objcopy @FILE), where a backslash quotes the next character."""
    argument = f"--redefine-sym={symbol.name}={symbol.original}"
    return re.sub(r"([\s\\'\"])", r"\\\1", argument)


def _record(manifest: Manifest, symbol: SymbolRecord) -> dict[str, Any]:
    return {
        "original": symbol.original,
        "name": symbol.name,
        "file": file_of(symbol) or None,
        "section": symbol.section,
        "offset": symbol.value,
        "size": symbol.size,
        "type": symbol.type,
        "binding": symbol.binding,
        "payload": manifest.payload,
        "build_id": manifest.build_id,
    }


def _print(manifest: Manifest, symbol: SymbolRecord) -> None:
    click.echo(shown(symbol.original))
    click.echo(f"  new name  {shown(symbol.name)}")
    click.echo(f"  file      {shown(file_of(symbol)) or '(new in the patch)'}")
    click.echo(
        f"  at        {shown(symbol.section)}+{symbol.value:#x}, {counted(symbol.size, 'byte')}, "
        + shown(f"{symbol.binding} {symbol.type}")
    )
    click.echo(f"  payload   {shown(manifest.payload)}, build-id {shown(manifest.build_id or '(none)')}")


def _borrowed_record(manifest: Manifest, entry: ReferenceRecord | FunctionNameRecord) -> dict[str, Any]:
    return {
        "original": entry.original,
        "name": entry.name,
        "kind": _kind(entry),
        "borrowed_from": {"payload": _owner(manifest, entry), "build_id": entry.build_id},
        "payload": manifest.payload,
        "build_id": manifest.build_id,
    }


def _print_borrowed(manifest: Manifest, entry: ReferenceRecord | FunctionNameRecord) -> None:
    click.echo(shown(entry.original))
    click.echo(f"  new name  {shown(entry.name)}")
    click.echo(f"  borrowed  from {shown(_owner(manifest, entry))}, build-id {shown(entry.build_id)}: {_kind(entry)}")
    click.echo(f"  payload   {shown(manifest.payload)}, build-id {shown(manifest.build_id or '(none)')}")


def _kind(entry: ReferenceRecord | FunctionNameRecord) -> str:
    return "undefined symbol" if isinstance(entry, ReferenceRecord) else "function to replace"


def _owner(manifest: Manifest, entry: ReferenceRecord | FunctionNameRecord) -> str:
    return next((one.payload for one in manifest.against if one.build_id == entry.build_id), "?")
