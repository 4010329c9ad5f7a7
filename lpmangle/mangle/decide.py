"""For each symbol its new name, or the reason why it keeps its own; and what clashes, before anything is written."""

import re
from collections.abc import Callable, Iterable
from fnmatch import translate
from typing import TYPE_CHECKING

from lpmangle import elf
from lpmangle.errors import PlanError
from lpmangle.mangle import mark
from lpmangle.mangle.mark import Mark
from lpmangle.mangle.names import Namer, field_of, resolve_suffix
from lpmangle.mangle.plan import Options, Outcome, Plan
from lpmangle.xen.abi import MAX_NAME
from lpmangle.xen.payload import Payload
from lpmangle.xen.symbols import Kind

if TYPE_CHECKING:
    from lpmangle.mangle.stack import Stack

# As plain numbers for the loop over all symbols.
_NEW, _RENAMED = int(Kind.NEW), int(Outcome.RENAMED)


def make_plan(payload: Payload, options: Options, stem: str, stack: "Stack | None" = None) -> Plan:
    """Decide for every symbol. `stem` is the payload's file name without its ending, for `--suffix name`.

    With `stack` for every name, too, that is another payload's. Raises NamingError for a bad suffix or template,
    PlanError for a clash or a payload mangled in another way.
    """
    suffix = resolve_suffix(options.suffix, payload.build_id, stem)
    namer = Namer(options.template, suffix)
    plan = Plan(options, suffix, payload.kinds)
    view, outcomes, renames = payload.elf, plan.outcomes, plan.renames
    there = mark.find(view)
    if there and not there.same_way(plan.mark):
        raise PlanError(
            f"is mangled already, with {there.words}",
            hint="to mangle it in another way, restore the original first: lpmangle restore",
        )
    only, keep = _Globs(options.only), _Globs(options.keep)
    signatures = {s.info for s in view.sections if s.type == elf.SHT_GROUP and s.link == view.symtab.number}
    # Every new name contains the suffix: while the string table does not, no old name can carry it or clash with one.
    suffix_occurs = view.data.find(suffix.encode(), view.strtab.offset, view.strtab.end) >= 0
    # Looked up once, not per symbol.
    kinds, string, rename, locals_only = payload.kinds, view.string, namer.rename, options.scope == "local"
    choosy = bool(only.globs or keep.globs or signatures)

    for index, (st_name, st_info, _, _, _, _) in enumerate(view.symbol_fields()):
        if kinds[index] != _NEW:
            continue
        name = string(st_name)
        if choosy and ((only.globs and not only.match(name)) or keep.match(name)):
            outcomes[index] = Outcome.EXCLUDED
        elif choosy and index in signatures:
            outcomes[index] = Outcome.GROUP_SIGNATURE
        elif locals_only and st_info >> 4 != elf.STB_LOCAL:
            outcomes[index] = Outcome.GLOBAL
        elif suffix_occurs and (there or namer.carries(name)):
            outcomes[index] = Outcome.CARRIES_SUFFIX
        else:
            outcomes[index] = _RENAMED
            renames[index] = rename(name)
    if len(set(renames.values())) < len(renames):
        _check_clashes(view, renames)
    _check_text(view, renames)
    if suffix_occurs:
        _check_carrying(plan, there, payload.build_id)
        _check_kept(view, plan)
    if renames:
        _check_build_id(view, payload.build_id)
    plan.already = there is not None or Outcome.CARRIES_SUFFIX in outcomes
    if stack:
        from lpmangle.mangle.borrowed import refer

        refer(plan, payload, stack, there)
    plan.unmatched = only.unused() + keep.unused()
    return plan


class _Globs:
    """Shell patterns, each tried on a symbol's whole name and on the part after its last '#'."""

    def __init__(self, globs: Iterable[str]) -> None:
        self.globs = list(globs)
        self._match: list[Callable[[str], object]] = [re.compile(translate(glob)).match for glob in self.globs]
        self._used = [False] * len(self.globs)

    def match(self, name: bytes) -> bool:
        if not self.globs:
            return False
        names = {part.decode("utf-8", "surrogateescape") for part in (name, field_of(name, "name"))}
        hits = [any(match(part) for part in names) for match in self._match]
        self._used = [used or hit for used, hit in zip(self._used, hits, strict=True)]
        return any(hits)

    def unused(self) -> list[str]:
        return [glob for glob, used in zip(self.globs, self._used, strict=True) if not used]


def _check_text(view: elf.Object, renames: dict[int, bytes]) -> None:
    if bytes(view.section_data(view.strtab)).isascii():
        return
    for index in renames:
        try:
            view.string(view.symbol(index).st_name).decode()
        except UnicodeDecodeError as error:
            raise PlanError(
                f"symbol {index}: its name is not UTF-8 text and cannot be written into a manifest: {error.object!r}",
                hint="leave it out with --keep, or give it a readable name in the source",
            ) from None


def _check_carrying(plan: Plan, there: Mark | None, build_id: bytes | None) -> None:
    """Names that carry the suffix in a file without the mark.

    Where the suffix is the payload's build-id nobody else has given it: the payload was mangled, and objcopy or strip,
    which write string tables of their own, dropped the mark. Any other suffix may be a part of the name.
    """
    carrying = plan.outcomes.count(Outcome.CARRIES_SUFFIX)
    ours = build_id is not None and build_id.hex().startswith(plan.suffix) and not plan.renames
    if carrying and there is None and not ours:
        raise PlanError(
            f"{carrying} of its new symbols carry the suffix {plan.suffix} already, {len(plan.renames)} do not",
            hint="if it was mangled and changed since, start from the payload as the linker left it; "
            f"if the names are meant so, leave them alone: --keep '*{plan.suffix}'",
        )


def holds_build_id(view: elf.Object, build_id: bytes | None) -> bool:
    """Whether names hold the payload's whole build-id: lpmangle made them."""
    digits = build_id.hex() if build_id else ""
    return len(digits) >= 16 and view.data.find(digits.encode(), view.strtab.offset, view.strtab.end) >= 0


def _check_build_id(view: elf.Object, build_id: bytes | None) -> None:
    """A name that holds the build-id was made in another way than asked for now."""
    if build_id and holds_build_id(view, build_id):
        raise PlanError(
            f"is mangled already: names hold its build-id {build_id.hex()}",
            hint="it was changed since, by objcopy or strip; start from the payload as the linker left it",
        )


def _check_clashes(view: elf.Object, renames: dict[int, bytes]) -> None:
    """Two symbols may get one new name only if they had one old name."""
    taken: dict[bytes, int] = {}
    for index, new in renames.items():
        first = taken.setdefault(new, index)
        if first != index and view.string(view.symbol(first).st_name) != view.string(view.symbol(index).st_name):
            raise _clash(view, first, index, new)


def _check_kept(view: elf.Object, plan: Plan) -> None:
    """No new name may be the name of a symbol that keeps its own, as far as Xen looks at names (126 bytes)."""
    taken = {new: index for index, new in reversed(plan.renames.items())}
    for index, (st_name, _, _, _, _, _) in enumerate(view.symbol_fields()):
        if index in plan.renames:
            continue
        name = view.string(st_name)[:MAX_NAME]
        if name in taken:
            raise _clash(view, taken[name], index, name)


def _clash(view: elf.Object, first: int, second: int, new: bytes) -> PlanError:
    names = [view.string(view.symbol(index).st_name) for index in (first, second)]
    one, two, both = map(elf.text, (*names, new))
    return PlanError(
        f"symbols {first} ({one}) and {second} ({two}) would both be called {both}",
        hint="use the default template, which keeps the file part, or another suffix",
    )
