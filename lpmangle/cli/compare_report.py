"""What `lpmangle compare` says: a summary, and sections of words that a terminal and a page can show; or JSON."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from lpmangle.cli.check_report import decisive, rules_line, rules_record
from lpmangle.cli.check_report import record as verdict_record
from lpmangle.cli.output import shown, table_lines
from lpmangle.cli.show import entry_record, wrapped
from lpmangle.elf import text
from lpmangle.errors import counted
from lpmangle.loader import NOT_ALL_CHECKED, State
from lpmangle.loader.rules import Rule
from lpmangle.review.compare import Comparison
from lpmangle.review.differences import Fate, SymbolChange, Why
from lpmangle.review.identity import ABSOLUTE, CONSTANT, STRING, Target
from lpmangle.review.subject import AS_THEY_STAND

_MOST_TEXT = 40
_MOST_NAMES = 20
# If so many functions are changed and hardly any are equal, it is a different build rather than a fix.
_MANY = 4


class Part(NamedTuple):
    """A part of the comparison: sentences, then a line for each name, then lists of names, each with a head."""

    title: str = ""
    lines: Sequence[str] = ()
    rows: Sequence[tuple[str, str]] = ()
    lists: Sequence[tuple[str, list[str]]] = ()
    behind: str = ""
    is_loss: bool = False  # what is lost deserves more attention than the rest


def summary(found: Comparison) -> list[str]:
    """What an engineer wants to know first, in a few words each."""
    parts = []
    verdicts = [change.verdict for change in found.functions]
    changed = [*verdicts, *(change.verdict for change in found.helpers)].count(Fate.CHANGED)
    for number, words in (
        (changed, "with changed code"),
        (verdicts.count(Fate.NEW), "replaced for the first time"),
        (verdicts.count(Fate.GONE), "the hypervisor's own again"),
    ):
        if number:
            parts.append(f"{counted(number, 'function')} {words}")
    if not parts:
        parts.append("equal code" if found.functions or found.helpers else "no functions")
    data = [one.verdict for one in (*found.variables, *found.constants)]
    for verdict, words in ((Fate.CHANGED, "with changed initial values"), (Fate.NEW, "new"), (Fate.GONE, "gone")):
        if number := data.count(verdict):
            parts.append(f"{counted(number, 'variable or constant', 'variables or constants')} {words}")
    lost = found.lost.variables
    if lost:
        size = counted(sum(one.size for one in lost), "byte")
        parts.append(f"{counted(len(lost), 'variable starts', 'variables start')} anew ({size})")
    parts.append(_may_replace(found))
    return parts


def _may_replace(found: Comparison) -> str:
    verdict = found.transition.verdict
    if verdict is None:
        return "OLD cannot be loaded"
    if verdict.first:
        return "Xen refuses NEW" if verdict.status == "refused" else "NEW would crash the hypervisor"
    unsure = "" if verdict.complete else NOT_ALL_CHECKED
    if verdict.good:
        return f"NEW replaces OLD{unsure}" if found.transition.replaces else f"NEW goes on top of OLD{unsure}"
    return f"NEW is accepted, and then cannot {verdict.attempt}{unsure}"


def page(found: Comparison, old: str, new: str, state: State) -> Iterator[str]:
    """The comparison in lines that can be printed."""
    yield f"{shown(old)} -> {shown(new)}: {'; '.join(summary(found))}"
    for section in sections(found):
        yield from _lines(section)
    yield from _transition(found, state)
    trouble = trouble_lines(found, old, new)
    yield from [""] * bool(trouble)
    yield from map(shown, trouble)


def sections(found: Comparison) -> list[Part]:
    """What has changed, part by part, without empty parts."""
    parts = [
        _facts(found),
        _notes(found),
        _functions(found),
        _symbols("functions that they add", found.helpers),
        _symbols("variables, by their initial values", found.variables),
        _symbols("constants", found.constants),
        _lost(found),
        *_others(found),
    ]
    return [part for part in parts if part]


def _lines(section: Part) -> Iterator[str]:
    if section.title:
        yield from ("", section.title)
    for line in section.lines:
        yield f"  {line}"
    rows: list[tuple[str, ...]] = [*section.rows]
    more = len(rows) - _MOST_NAMES if section.is_loss else 0
    for line in table_lines(rows[:_MOST_NAMES] if more > 0 else rows) if rows else ():
        yield f"  {line}"
    if more > 0:
        yield f"  and {more} more"
    for head, names in section.lists:
        yield from wrapped(head, _some(names))
    if section.behind:
        yield f"  {section.behind}"


def _facts(found: Comparison) -> Part | None:
    words = {
        "machine": "machine",
        "depends": "put on build-id",
        "xen_depends": "for Xen with build-id",
        "compilers": "made with",
    }
    rows = [(words[name], f"{old or '-'} -> {new or '-'}") for name, old, new in found.facts]
    for path, side in (("OLD", found.old), ("NEW", found.new)):
        if side.subject.mark and side.subject.names_from == AS_THEY_STAND:
            rows.append((path, "is mangled, and its original names are not known"))
    return Part(rows=rows) if rows else None


def _notes(found: Comparison) -> Part | None:
    heads = zip(("only in OLD: ", "both: ", "only in NEW: "), found.notes, strict=True)
    lists = [(head, list(notes)) for head, notes in heads if notes]
    return Part("notes", lists=lists) if lists else None


def _functions(found: Comparison) -> Part:
    if not found.functions:
        return Part("functions that they replace: none")
    equal = [text(one.name) for one in found.functions if one.verdict == Fate.EQUAL]
    changed = [one for one in found.functions if one.verdict == Fate.CHANGED]
    lines, rows = [], []
    if _is_rebuilt(len(changed), len(equal)):
        lines = [f"{_all(changed, equal)} that both replace have changed code: another compiler, or other options?"]
    else:
        rows += [(text(one.name), f"changed, {_why(one.why)}") for one in changed]
    for one in found.functions:
        if one.verdict == Fate.NEW:
            deleted = one.new is not None and one.new.replacement is None
            rows.append((text(one.name), f"{'deleted' if deleted else 'replaced'} only by NEW"))
        elif one.verdict == Fate.GONE:
            rows.append((text(one.name), "replaced only by OLD: after replace, the hypervisor's own runs again"))
    return Part("functions that they replace", lines, rows, _equal(equal))


def _is_rebuilt(changed: int, equal: int) -> bool:
    """Whether so much has changed that nobody wants to read it one by one."""
    return changed >= _MANY and changed >= 4 * equal


def _all(changed: Sequence[object], equal: Sequence[object]) -> str:
    return f"{len(changed)} of {len(changed) + len(equal)}" if equal else f"all {len(changed)}"


def _symbols(title: str, changes: Sequence[SymbolChange]) -> Part | None:
    if not changes:
        return None
    changed = [one for one in changes if one.verdict == Fate.CHANGED]
    equal = [text(one.name) for one in changes if one.verdict == Fate.EQUAL]
    lines, rows = [], []
    if _is_rebuilt(len(changed), len(equal)):
        lines = [f"{_all(changed, equal)} that both have are changed"]
    else:
        rows += [(text(one.name), f"changed, {_why(one.why)}") for one in changed]
    rows += [
        (text(one.name), f"{one.verdict}, {counted(one.new_size or one.old_size or 0, 'byte')}")
        for one in changes
        if one.verdict in (Fate.NEW, Fate.GONE)
    ]
    return Part(title, lines, rows, _equal(equal))


def _equal(names: list[str]) -> list[tuple[str, list[str]]]:
    return [(f"{len(names)} equal: ", names)] if names else []


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
        return "deletes a different number of bytes"
    if why.what == "references":
        return f"different references, from {why.at:#x} on"
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


def _lost(found: Comparison) -> Part | None:
    lost = found.lost
    if not lost.variables:
        return None
    rows = [(text(one.name), counted(one.size, "byte")) for one in lost.variables]
    unless = f"unless the {lost.carriers} hook of NEW carries them over" if lost.hooks else ""
    return Part(f"state that is lost: {Rule.STATE_RESET.meaning}", rows=rows, behind=unless, is_loss=True)


def _others(found: Comparison) -> Iterator[Part]:
    rows = [
        (f"{one.kind} hook", f"{_list(one.old)} -> {_list(one.new)}")
        for one in found.hooks
        if one.verdict != Fate.EQUAL
    ]
    rows += [
        (one.section, f"{one.new} new, {one.gone} gone, {one.both} in both")
        for one in found.special
        if one.new or one.gone
    ]
    if rows:
        yield Part("hooks and special sections", rows=rows)
    gone, new = found.needs
    if needs := [
        (head, list(map(text, names))) for head, names in (("only in NEW: ", new), ("only in OLD: ", gone)) if names
    ]:
        yield Part("names that they need", lists=needs)
    if found.globals_gone:
        names = list(map(text, found.globals_gone))
        yield Part("GLOBAL names that are gone; a payload on top of OLD may use them", lists=[("", names)])


def transition_words(found: Comparison) -> tuple[str, str]:
    """The upload of NEW: the question, and the answer."""
    verdict = found.transition.verdict
    if verdict is None:
        return "OLD cannot be loaded", found.transition.trouble
    return "upload while OLD is applied", f"{verdict.words}{_then(found)}"


def _transition(found: Comparison, state: State) -> Iterator[str]:
    verdict = found.transition.verdict
    yield ""
    yield shown(": ".join(transition_words(found)))
    if verdict is None:
        return
    if reported := decisive(verdict):
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


def trouble_lines(found: Comparison, old: str, new: str) -> list[str]:
    """What could not be read."""
    return [
        f"{path}: incomplete: {line}" for path, side in ((old, found.old), (new, found.new)) for line in side.trouble
    ]


def _list(names: list[bytes]) -> str:
    return ", ".join(map(text, names)) or "-"


def _some(names: list[str]) -> list[str]:
    """No more than one wants to read on a terminal; --json and --html have all."""
    return names if len(names) <= _MOST_NAMES else [*names[:_MOST_NAMES], f"and {len(names) - _MOST_NAMES} more"]


def record(found: Comparison, old: str, new: str, state: State) -> dict[str, Any]:
    """The comparison for JSON."""
    verdict = found.transition.verdict
    gone, wanted = found.needs
    return {
        "old": {"payload": old, "build_id": found.old.build_id, "trouble": found.old.trouble},
        "new": {"payload": new, "build_id": found.new.build_id, "trouble": found.new.trouble},
        "summary": "; ".join(summary(found)),
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
