"""lpmangle compare: what changes for a host from one payload to the next, in words."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from lpmangle.cli.check_report import record as verdict_record
from lpmangle.cli.check_report import rules_line, rules_record
from lpmangle.cli.output import print_json, shown, table_lines
from lpmangle.cli.paths import FilePath, PayloadPath, SourceWord
from lpmangle.cli.settings import Command
from lpmangle.cli.show import WIDTH, entry_record
from lpmangle.elf import text
from lpmangle.errors import EXIT_NO, counted
from lpmangle.jobs.check import state_of
from lpmangle.jobs.compare import compare_in
from lpmangle.loader import State
from lpmangle.loader.profile import VENDORS
from lpmangle.loader.rules import Rule
from lpmangle.review.compare import Comparison
from lpmangle.review.differences import SymbolChange, Verdict, Why
from lpmangle.review.identity import ABSOLUTE, CONSTANT, STRING, Target
from lpmangle.review.subject import AS_THEY_STAND

_MOST_TEXT = 40
# So many functions, and hardly any of them equal, are no fix, but another build.
_MANY = 4


@click.command(
    "compare",
    cls=Command,
    help="""\b
Examples:
  lpmangle compare 617712b.livepatch fbab204.livepatch
  lpmangle compare --xen xen-syms --json 617712b.livepatch fbab204.livepatch
  lpmangle compare --exit-code rebuilt/fbab204.livepatch shipped/fbab204.livepatch

Say what changes for a host that runs OLD and gets NEW: which functions have other code, which are
the hypervisor's own again, which variables start anew, what is new and what is gone, and whether
Xen lets NEW replace OLD. Either may be mangled or signed; names are the original ones. Code that
only lies elsewhere is equal: what relocations fill in is compared by what they lead to. The first
line is a summary.
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
@click.option("--xen-version", metavar="VERSION", help="Whose rules to follow. Default: what xen-syms says.")
@click.option("--vendor", type=click.Choice(VENDORS), help="Whose Xen it is, if not as released.")
@click.option("-m", "--manifest", "source", type=SourceWord(), metavar="SOURCE", help="Where the manifests are.")
@click.option("--exit-code", is_flag=True, help="The exit code is 1 if they differ in more than names and places.")
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
    as_json: bool,
) -> None:
    state = state_of(xen_path, xen_version, vendor)
    found = compare_in(state, old, new, source)
    if as_json:
        print_json(record(found, old, new, state))
    else:
        for line in page(found, old, new, state):
            click.echo(line)
    if exit_code and found.differs:
        ctx.exit(EXIT_NO)


def summary(found: Comparison) -> str:
    """What an engineer wants to know first, in one line."""
    parts = []
    verdicts = [change.verdict for change in found.functions]
    changed = [*verdicts, *(change.verdict for change in found.helpers)].count(Verdict.CHANGED)
    for number, words in (
        (changed, "with other code"),
        (verdicts.count(Verdict.NEW), "replaced for the first time"),
        (verdicts.count(Verdict.GONE), "the hypervisor's own again"),
    ):
        if number:
            parts.append(f"{counted(number, 'function')} {words}")
    if not parts:
        parts.append("equal code" if found.functions or found.helpers else "no functions")
    data = [one.verdict for one in (*found.variables, *found.constants)]
    for verdict, words in ((Verdict.CHANGED, "with other first values"), (Verdict.NEW, "new"), (Verdict.GONE, "gone")):
        if number := data.count(verdict):
            parts.append(f"{counted(number, 'variable or constant', 'variables or constants')} {words}")
    lost = found.lost.variables
    if lost:
        size = counted(sum(one.size for one in lost), "byte")
        parts.append(f"{counted(len(lost), 'variable starts', 'variables start')} anew ({size})")
    parts.append(_may_replace(found))
    return "; ".join(parts)


def _may_replace(found: Comparison) -> str:
    verdict = found.transition.verdict
    if verdict is None:
        return "OLD cannot be loaded"
    if verdict.first:
        return "Xen refuses NEW" if verdict.status == "refused" else "NEW would crash the hypervisor"
    unsure = "" if verdict.complete else " (not all checked)"
    if verdict.good:
        return f"NEW replaces OLD{unsure}" if found.transition.replaces else f"NEW goes on top of OLD{unsure}"
    return f"NEW is taken, and then cannot {verdict.attempt}{unsure}"


def page(found: Comparison, old: str, new: str, state: State) -> Iterator[str]:
    """The comparison in lines that can be printed."""
    yield f"{shown(old)} -> {shown(new)}: {summary(found)}"
    yield from _facts(found)
    yield from _notes(found)
    yield from _functions(found)
    yield from _symbols("functions of their own", found.helpers)
    yield from _symbols("variables, by their first values", found.variables)
    yield from _symbols("constants", found.constants)
    yield from _lost(found)
    yield from _others(found)
    yield from _transition(found, state)
    trouble = [(path, line) for path, side in ((old, found.old), (new, found.new)) for line in side.trouble]
    yield from [""] * bool(trouble)
    for path, line in trouble:
        yield f"{shown(path)}: not all can be told: {shown(line)}"


def _facts(found: Comparison) -> Iterator[str]:
    words = {
        "machine": "machine",
        "depends": "put on what has build-id",
        "xen_depends": "for the Xen with build-id",
        "compilers": "made with",
    }
    rows = [(words[name], f"{old or '-'} -> {new or '-'}") for name, old, new in found.facts]
    for path, side in (("OLD", found.old), ("NEW", found.new)):
        if side.subject.mark and side.subject.names_from == AS_THEY_STAND:
            rows.append((path, "is mangled, and its original names are not known"))
    yield from _table(rows)


def _notes(found: Comparison) -> Iterator[str]:
    if any(found.notes):
        yield ""
        yield "notes"
        for words, several in zip(("OLD alone: ", "both: ", "NEW alone: "), found.notes, strict=True):
            yield from _wrapped(words, several) if several else ()


def _functions(found: Comparison) -> Iterator[str]:
    if not found.functions:
        yield from ("", "functions that they replace: none")
        return
    yield ""
    yield "functions that they replace"
    equal = [text(one.name) for one in found.functions if one.verdict == Verdict.EQUAL]
    changed = [one for one in found.functions if one.verdict == Verdict.CHANGED]
    rows = []
    if _is_rebuilt(len(changed), len(equal)):
        yield f"  {_all(changed, equal)} that both replace have other code: another compiler, or other options?"
    else:
        rows += [(text(one.name), f"other code, {_why(one.why)}") for one in changed]
    for one in found.functions:
        if one.verdict == Verdict.NEW:
            deleted = one.new is not None and one.new.replacement is None
            rows.append((text(one.name), f"{'deleted' if deleted else 'replaced'} by NEW alone"))
        elif one.verdict == Verdict.GONE:
            rows.append((text(one.name), "replaced by OLD alone: after replace the hypervisor's own runs again"))
    yield from _table(rows)
    yield from _equal(equal)


def _is_rebuilt(changed: int, equal: int) -> bool:
    """Whether so much is another that nobody wants to read it one by one."""
    return changed >= _MANY and changed >= 4 * equal


def _all(changed: Sequence[object], equal: Sequence[object]) -> str:
    return f"{len(changed)} of {len(changed) + len(equal)}" if equal else f"all {len(changed)}"


def _symbols(title: str, changes: Sequence[SymbolChange]) -> Iterator[str]:
    if not changes:
        return
    yield ""
    yield title
    changed = [one for one in changes if one.verdict == Verdict.CHANGED]
    equal = [text(one.name) for one in changes if one.verdict == Verdict.EQUAL]
    rows = []
    if _is_rebuilt(len(changed), len(equal)):
        yield f"  {_all(changed, equal)} that both have are others"
    else:
        rows += [(text(one.name), f"other, {_why(one.why)}") for one in changed]
    rows += [
        (text(one.name), f"{one.verdict}, {counted(one.new_size or one.old_size or 0, 'byte')}")
        for one in changes
        if one.verdict in (Verdict.NEW, Verdict.GONE)
    ]
    yield from _table(rows)
    yield from _equal(equal)


def _equal(names: list[str]) -> Iterator[str]:
    if names:
        yield from _wrapped(f"{len(names)} equal: ", names)


def _why(why: Why | None) -> str:
    if why is None:
        return ""
    if why.what == "size":
        return f"size {why.sizes[0]} -> {why.sizes[1]}"
    if why.what == "bytes":
        return f"from byte {why.at:#x} on"
    if why.what == "target" and why.old and why.new:
        return f"at {why.at:#x} {_target(why.new)} where OLD has {_target(why.old)}"
    if why.what == "deletion":
        return "another number of bytes is deleted"
    if why.what == "references":
        return f"other references, from {why.at:#x} on"
    return "cannot be compared"


def _target(target: Target) -> str:
    if target.kind == STRING:
        words = text(target.shown)
        return f'"{words[:_MOST_TEXT]}{"..." if len(words) > _MOST_TEXT else ""}"'
    if target.kind == CONSTANT and not target.shown:
        return "a constant"
    if target.kind == ABSOLUTE:
        return f"{target.offset:#x}"
    sign = "-" if target.offset < 0 else "+"
    return text(target.shown) + (f"{sign}{abs(target.offset):#x}" if target.offset else "")


def _lost(found: Comparison) -> Iterator[str]:
    lost = found.lost
    if not lost.variables:
        return
    yield ""
    yield f"state that is lost: {Rule.STATE_RESET.meaning}"
    yield from _table((text(one.name), counted(one.size, "byte")) for one in lost.variables)
    if lost.hooks:
        yield f"  unless the {lost.carriers} hook of NEW carries them over"


def _others(found: Comparison) -> Iterator[str]:
    rows = [
        (f"{one.kind} hook", f"{_list(one.old)} -> {_list(one.new)}")
        for one in found.hooks
        if one.verdict != Verdict.EQUAL
    ]
    rows += [
        (one.section, f"{one.new} new, {one.gone} gone, {one.both} in both")
        for one in found.special
        if one.new or one.gone
    ]
    if rows:
        yield ""
        yield "hooks and special sections"
        yield from _table(rows)
    gone, new = found.needs
    if gone or new:
        yield ""
        yield "names that they need"
        yield from _wrapped("NEW alone: ", list(map(text, new))) if new else ()
        yield from _wrapped("OLD alone: ", list(map(text, gone))) if gone else ()
    if found.globals_gone:
        yield ""
        yield "GLOBAL names that are gone: a payload on top of OLD may use them"
        yield from _wrapped("", list(map(text, found.globals_gone)))


def _transition(found: Comparison, state: State) -> Iterator[str]:
    verdict = found.transition.verdict
    yield ""
    if verdict is None:
        yield f"OLD cannot have been loaded: {shown(found.transition.trouble)}"
        return
    yield f"upload while OLD is applied: {verdict.words}{_then(found)}"
    reported = verdict.first or next((one for one in verdict.then if one.fatal), None)
    if reported:
        yield f"  {shown(reported.meaning)} [{reported.rule}]"
        yield f"  remedy: {shown(reported.remedy)}"
    if found.transition.printed:
        yield "the console prints"
        for line in found.transition.printed:
            yield f"  (XEN) {shown(line)}"
    yield f"{rules_line(state)}{_more(found)}"


def _then(found: Comparison) -> str:
    verdict = found.transition.verdict
    if verdict is None or verdict.first:
        return ""
    return f", then: xen-livepatch {verdict.attempt} {verdict.upload.name}" + ("" if verdict.good else " fails")


def _more(found: Comparison) -> str:
    verdict = found.transition.verdict
    many = len(verdict.everything) if verdict else 0
    return f" All {many} findings: lpmangle check --loaded OLD NEW" if many > 1 else ""


def _list(names: list[bytes]) -> str:
    return ", ".join(map(text, names)) or "-"


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    found = list(rows)
    return [f"  {line}" for line in table_lines(list(found))] if found else []


def _wrapped(head: str, names: list[str]) -> list[str]:
    return textwrap.wrap(
        head + ", ".join(map(shown, names)),
        WIDTH,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def record(found: Comparison, old: str, new: str, state: State) -> dict[str, Any]:
    """The comparison for JSON."""
    verdict = found.transition.verdict
    gone, wanted = found.needs
    return {
        "old": {"payload": old, "build_id": found.old.build_id, "trouble": found.old.trouble},
        "new": {"payload": new, "build_id": found.new.build_id, "trouble": found.new.trouble},
        "summary": summary(found),
        "differs": found.differs,
        "notes": dict(zip(("gone", "both", "new"), found.notes, strict=True)),
        "source_sha256": {"old": found.old.subject.source, "new": found.new.subject.source},
        "facts": [{"what": name, "old": one, "new": other} for name, one, other in found.facts],
        "functions": [
            {
                "name": text(one.name),
                "verdict": one.verdict,
                "old": one.old and entry_record(one.old),
                "new": one.new and entry_record(one.new),
                "why": _why_record(one.why),
            }
            for one in found.functions
        ],
        "helpers": _symbol_records(found.helpers),
        "variables": _symbol_records(found.variables),
        "constants": _symbol_records(found.constants),
        "lost_state": {
            "variables": [{"name": text(one.name), "size": one.size} for one in found.lost.variables],
            "hooks": found.lost.hooks,
        },
        "hooks": [
            {
                "kind": one.kind,
                "verdict": one.verdict,
                "old": [text(name) for name in one.old],
                "new": [text(name) for name in one.new],
            }
            for one in found.hooks
        ],
        "special_sections": [one._asdict() for one in found.special],
        "needs": {"gone": [text(name) for name in gone], "new": [text(name) for name in wanted]},
        "globals_gone": [text(name) for name in found.globals_gone],
        "replaces": found.transition.replaces,
        "console": found.transition.printed,
        "check": verdict and verdict_record(verdict),
        "not_loaded": found.transition.trouble,
        **rules_record(state),
    }


def _symbol_records(changes: Sequence[SymbolChange]) -> list[dict[str, Any]]:
    return [
        {
            "name": text(one.name),
            "verdict": one.verdict,
            "old_size": one.old_size,
            "new_size": one.new_size,
            "why": _why_record(one.why),
        }
        for one in changes
    ]


def _why_record(why: Why | None) -> dict[str, Any] | None:
    if why is None:
        return None
    targets = {name: one and _target(one) for name, one in (("old", why.old), ("new", why.new))}
    sizes = {"old_size": why.sizes[0], "new_size": why.sizes[1]} if why.what == "size" else {}
    return {"what": why.what, "at": why.at, **targets, **sizes}
