"""The answer of lpmangle query: names in either direction, as text, JSON, or arguments for objcopy."""

import re
from collections.abc import Sequence
from typing import Any

from lpmangle.cli.output import print_exact, print_json, print_line, shown
from lpmangle.errors import EXIT_NO, counted
from lpmangle.jobs.query import query
from lpmangle.manifest.read import FunctionNameRecord, Manifest, ReferenceRecord, SymbolRecord
from lpmangle.manifest.search import file_of
from lpmangle.store.open import has_servers

_BUILD_ID = re.compile("[0-9a-f]{16}")  # long enough to be one


def answer(symbols: Sequence[str], words: Sequence[str], form: str) -> int:
    """Look up `symbols` in the sources that `words` name, and say what was found. Returns the exit code."""
    matches, borrowed, missing = query(symbols, words)
    if form == "json":
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
    for pattern in missing if form != "json" else ():
        print_line(f"lpmangle: {shown(pattern)}: not in any manifest that was found", err=True)
        if has_servers(words) and not _BUILD_ID.search(pattern):
            hint = "a server can only be asked by build-id: give the full new name, which contains it"
            print_line(f"  hint: {hint}", err=True)
    return EXIT_NO if missing else 0


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
    print_line(shown(symbol.original))
    print_line(f"  new name  {shown(symbol.name)}")
    print_line(f"  file      {shown(file_of(symbol)) or '(new in the patch)'}")
    print_line(
        f"  at        {shown(symbol.section)}+{symbol.value:#x}, {counted(symbol.size, 'byte')}, "
        + shown(f"{symbol.binding} {symbol.type}")
    )
    print_line(f"  payload   {shown(manifest.payload)}, build-id {shown(manifest.build_id or '(none)')}")


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
    print_line(shown(entry.original))
    print_line(f"  new name  {shown(entry.name)}")
    print_line(f"  borrowed  from {shown(_owner(manifest, entry))}, build-id {shown(entry.build_id)}: {_kind(entry)}")
    print_line(f"  payload   {shown(manifest.payload)}, build-id {shown(manifest.build_id or '(none)')}")


def _kind(entry: ReferenceRecord | FunctionNameRecord) -> str:
    return "undefined symbol" if isinstance(entry, ReferenceRecord) else "function to replace"


def _owner(manifest: Manifest, entry: ReferenceRecord | FunctionNameRecord) -> str:
    return next((one.payload for one in manifest.against if one.build_id == entry.build_id), "?")
