"""lpmangle show: what a payload is and does, in words."""

import gc
from collections.abc import Iterable
from typing import Any

import click

from lpmangle.cli.output import error_lines, print_json, shown, table_lines
from lpmangle.cli.paths import PayloadPath, SourceWord
from lpmangle.cli.settings import Command
from lpmangle.elf import STB_NAMES, text
from lpmangle.errors import LpmangleError, counted
from lpmangle.jobs.show import Shown, show_file
from lpmangle.review.inventory import CONSTANT, FUNCTION, STATE, TABLE, Added, Inventory, Needed
from lpmangle.review.subject import AS_THEY_STAND, FROM_MARK, ReplacedFunction

WIDTH = 100
_WORDS = {FUNCTION: "function", STATE: "variable", CONSTANT: "constant", TABLE: "table of Xen's"}


@click.command(
    "show",
    cls=Command,
    help="""\b
Examples:
  lpmangle show fbab204.livepatch
  lpmangle show --mangled build/*.livepatch
  lpmangle show --json fbab204.livepatch -m shipped.db

Say what PAYLOADs are and do: which functions of the hypervisor they replace, what they add and its
size, which functions are called when they are applied, which sections Xen reads, and what they need
of the hypervisor and of payloads below. Names are the original ones, from the manifest, or from the
payload itself if there is none.
""",
)
@click.argument("payloads", nargs=-1, required=True, type=PayloadPath(), metavar="PAYLOAD...")
@click.option("-m", "--manifest", "source", type=SourceWord(), metavar="SOURCE", help="Where the manifests are.")
@click.option("--mangled", is_flag=True, help="Show the names that the symbols have in the file.")
@click.option("--json", "as_json", is_flag=True, help="Report as JSON, with both names.")
@click.pass_context
def command(ctx: click.Context, payloads: tuple[str, ...], source: str | None, mangled: bool, as_json: bool) -> None:
    gc.disable()  # a short run, in which nothing makes many cycles
    status, records = 0, []
    for number, path in enumerate(payloads):
        try:
            found = show_file(path, source)
        except LpmangleError as error:
            lines, code = error_lines(error)
            status = max(status, code)
            for line in lines:
                click.echo(line, err=True)
            continue
        if as_json:
            records.append(record(found))
            continue
        if number:
            click.echo()
        for line in page(found, mangled):
            click.echo(line)
    if as_json:
        print_json({"payloads": records})
    ctx.exit(status)


def page(found: Shown, mangled: bool) -> list[str]:
    """One payload in lines that can be printed."""
    inventory = found.inventory
    lines = [shown(found.path)]
    lines += _aligned(_facts(found))
    lines += _functions(inventory.functions)
    lines += _added(inventory.added, mangled)
    if inventory.hooks:
        lines += ["", "hooks"]
        lines += _aligned((hook.kind, ", ".join(map(shown, hook.functions))) for hook in inventory.hooks)
    if inventory.special:
        lines += ["", "special sections"]
        lines += _aligned((one.section, _size(one.size, one.entries)) for one in inventory.special)
    lines += _needs(inventory, mangled)
    lines += [""] * bool(inventory.trouble)
    lines += [f"incomplete: {shown(trouble)}" for trouble in inventory.trouble]
    return lines


def _facts(found: Shown) -> Iterable[tuple[str, str]]:
    inventory = found.inventory
    version = f", format version {inventory.version}" if inventory.version else ""
    yield "payload", f"{inventory.machine}, {counted(len(inventory.view.data), 'byte')}{version}"
    yield "build-id", inventory.build_id or "(none)"
    if inventory.stacked:
        yield "put on", f"the payload with build-id {inventory.depends}"
    else:
        yield "put on", "the hypervisor" if inventory.depends else "(not stated)"
    yield "for Xen", inventory.xen_depends or inventory.depends or "(not stated)"
    yield "mangled", _mangled(found)
    if inventory.subject.notes:
        yield "notes", ", ".join(inventory.subject.notes)
    if inventory.subject.source:
        yield "source", f"sha256 {inventory.subject.source}"
    yield "signed", _signed(inventory)
    if inventory.compilers:
        yield "made with", ", ".join(inventory.compilers)


def _signed(inventory: Inventory) -> str:
    return inventory.signed.words("follows", "follow") or (
        "not yet; there is space for a signature" if inventory.to_be_signed else "no"
    )


def _mangled(found: Shown) -> str:
    subject = found.inventory.subject
    if subject.mark:
        how = subject.mark.words or f"by a newer lpmangle: {subject.mark.globs}"
    elif found.manifest:
        how = "yes; rewritten since by objcopy, strip or a signer"
    else:
        return "no"
    missing = {
        FROM_MARK: "; no manifest was found, the original names are derived from the new ones",
        AS_THEY_STAND: "; no manifest was found, the names are those in the file",
    }.get(subject.names_from, "")
    return how + missing


def _functions(entries: list[ReplacedFunction]) -> list[str]:
    if not entries:
        return ["", "replaces no function"]
    rows: list[tuple[str, ...]] = [(f"replaces {counted(len(entries), 'function')}", "OLD SIZE", "NEW SIZE", "")]
    for entry in entries:
        expected = f"if it begins with {entry.expected.hex()}" if entry.expected is not None else ""
        deleted = "" if entry.replacement else f"the first {counted(entry.new_size, 'byte')} deleted"
        size = f"{entry.new_size if entry.replacement else '-':>8}"
        name = text(entry.name) or f"(at {entry.old_addr:#x})"
        rows.append((f"  {name}", f"{entry.old_size:>8}", size, ", ".join(filter(None, (deleted, expected)))))
    return ["", *table_lines(rows)]


def _added(added: list[Added], mangled: bool) -> list[str]:
    lines = []
    for kind, word in _WORDS.items():
        of_kind = [one for one in added if one.kind == kind]
        if not of_kind or kind == TABLE:
            continue
        size = sum(one.size for one in of_kind)
        state = " that hold state" if kind == STATE else ""
        lines += ["", f"adds {counted(len(of_kind), word)}{state}, {counted(size, 'byte')}"]
        width = max(len(str(one.size)) for one in of_kind)
        rows: list[tuple[str, ...]] = []
        for one in of_kind:
            binding = STB_NAMES.get(one.binding, str(one.binding))
            name = text(one.new_name if mangled else one.name)
            rows.append((f"  {name}", str(one.size).rjust(width), "" if binding == "LOCAL" else binding))
        lines += table_lines(rows)
    return lines


def _needs(inventory: Inventory, mangled: bool) -> list[str]:
    lines = []
    below = [one for one in inventory.needed if one.borrowed]
    others = [one for one in inventory.needed if not one.borrowed]
    whose = "of the hypervisor, or of payloads below" if inventory.stacked else "of the hypervisor"
    for several, words in ((others, whose), (below, "of payloads below, by the names that they have there")):
        if several:
            lines += ["", f"needs {counted(len(several), 'name')} {words}", *wrapped("", _names(several, mangled))]
    return lines


def _names(several: list[Needed], mangled: bool) -> list[str]:
    return [text(one.new_name if mangled else one.name) for one in several]


def wrapped(head: str, names: Iterable[str]) -> list[str]:
    """Names, made safe to print, one after the other in lines of at most WIDTH characters."""
    lines, line = [], f"  {head}"
    for number, name in enumerate(map(shown, names)):
        if number and len(line) + len(name) > WIDTH - 2:
            lines.append(f"{line.rstrip()},")
            line = f"  {name}"
        else:
            line += f", {name}" if number else name
    return [*lines, line]


def _aligned(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [f"  {line}" for line in table_lines(list(pairs))]


def _size(size: int, entries: int | None) -> str:
    return counted(size, "byte") if entries is None else counted(entries, "entry", "entries")


def record(found: Shown) -> dict[str, Any]:
    """One payload for JSON. Names are unchanged; bytes that are not text are escaped."""
    inventory = found.inventory
    mark = inventory.subject.mark
    return {
        "payload": found.path,
        "machine": inventory.machine,
        "size": len(inventory.view.data),
        "version": inventory.version,
        "build_id": inventory.build_id,
        "depends": inventory.depends,
        "xen_depends": inventory.xen_depends,
        "signed": {
            "note": str(note) if (note := inventory.signed.note) else None,
            "appended": inventory.signed.appended,
        },
        "compilers": inventory.compilers,
        "mangled": mark.words if mark else None,
        "suffix": mark.suffix if mark else None,
        "names_from": inventory.subject.names_from,
        "notes": inventory.subject.notes,
        "source_sha256": inventory.subject.source,
        "functions": [entry_record(entry) for entry in inventory.functions],
        "adds": [
            {
                "kind": one.kind,
                "name": text(one.name),
                "new_name": text(one.new_name),
                "size": one.size,
                "section": one.section,
                "binding": STB_NAMES.get(one.binding, str(one.binding)),
            }
            for one in inventory.added
        ],
        "hooks": [
            {"kind": hook.kind, "functions": [text(name) for name in hook.functions]} for hook in inventory.hooks
        ],
        "special_sections": [one._asdict() for one in inventory.special],
        "needs": [
            {"name": text(one.name), "new_name": text(one.new_name), "borrowed": one.borrowed}
            for one in inventory.needed
        ],
        "trouble": inventory.trouble,
    }


def entry_record(entry: ReplacedFunction) -> dict[str, Any]:
    """One entry of .livepatch.funcs for JSON."""
    return {
        "name": text(entry.name),
        "old_size": entry.old_size,
        "new_size": entry.new_size,
        "old_address": entry.old_addr,
        "deleted": entry.replacement is None,
        "expected": None if entry.expected is None else entry.expected.hex(),
    }
