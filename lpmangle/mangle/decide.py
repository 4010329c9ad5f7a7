"""Decides for each symbol its new name, or why it keeps its own; finds clashes before anything is written."""

from itertools import compress

from lpmangle import elf
from lpmangle.errors import MangledError, PlanError
from lpmangle.mangle import mark
from lpmangle.mangle.names import Namer, field_of, resolve_suffix
from lpmangle.mangle.options import Options
from lpmangle.mangle.plan import Outcome, Plan
from lpmangle.system.light import Callable, Iterable
from lpmangle.system.records import TYPE_CHECKING
from lpmangle.xen.abi import MAX_NAME
from lpmangle.xen.payload import Payload
from lpmangle.xen.symbols import UNUSUAL, Kind, SymbolRules

if TYPE_CHECKING:
    from lpmangle.mangle.stack import Stack

_IS_NOT_LOCAL = bytes(info >> 4 != elf.STB_LOCAL for info in range(256))


def make_plan(payload: Payload, options: Options, stem: str, stack: "Stack | None" = None) -> Plan:
    """Decide for every symbol. `stem` is the payload's file name without its ending, for `--suffix name`.

    With `stack`, also for every name that is borrowed. Raises NamingError for a bad suffix or template,
    PlanError for a clash or a payload mangled in another way, PayloadError for one that cannot be read like Xen.
    """
    suffix = resolve_suffix(options.suffix, payload.build_id, stem)
    namer = Namer(options.template, suffix)
    plan = Plan(options, suffix, payload.kinds)
    view, outcomes, renames = payload.elf, plan.outcomes, plan.renames
    there = mark.find(view)
    if there and not there.same_way(plan.mark):
        raise MangledError(
            f"is already mangled, with {there.words}",
            hint="to mangle it in another way, restore the original first: lpmangle restore",
        )
    only, keep = _Globs(options.only), _Globs(options.keep)
    signatures = {s.info for s in view.sections if s.type == elf.SHT_GROUP and s.link == view.symtab.number}
    # Every new name contains the suffix: if the string table does not, no old name can clash with a new one.
    suffix_occurs = view.data.find(suffix.encode(), view.strtab.offset, view.strtab.end) >= 0
    st_names, new = view.symbol_column("st_name"), plan.indices(Kind.NEW)
    stays: dict[int, int] = {}
    if only.globs or keep.globs:
        for index in new:
            name = view.string(st_names[index])
            if (only.globs and not only.match(name)) or keep.match(name):
                stays[index] = Outcome.EXCLUDED
    for index in signatures:
        if outcomes[index] == Kind.NEW:
            stays.setdefault(index, Outcome.GROUP_SIGNATURE)
    if options.scope == "local":
        not_local = view.symbol_column("st_info").tobytes().translate(_IS_NOT_LOCAL)
        for index in compress(new, compress(not_local, plan.flags(Kind.NEW))):
            stays.setdefault(index, Outcome.GLOBAL)
    for index, reason in stays.items():
        outcomes[index] = reason
    outcomes[:] = outcomes.replace(bytes([Kind.NEW]), bytes([Outcome.RENAMED]))
    names = view.strings(compress(st_names, plan.flags(Outcome.RENAMED)))
    renames.update(zip(plan.indices(Outcome.RENAMED), namer.rename_all(names), strict=True))
    if stays:
        _keep_twins(plan, names, view.strings(map(st_names.__getitem__, stays)))
    plan.already = there is not None or (suffix_occurs and _lost_its_mark(plan, payload, namer))
    if plan.already:
        for index in renames:
            outcomes[index] = Outcome.CARRIES_SUFFIX
        renames.clear()
    if not namer.keeps_whole(names):
        _check_clashes(view, renames)
    _check_text(view, renames)
    _check_kinds(payload, renames)
    if renames:
        _check_build_id(view, payload.build_id)
        if suffix_occurs:
            _check_kept(view, plan)
    if stack:
        # Few payloads are stacked, and this runs for each payload of a build loop.
        from lpmangle.mangle.borrowed import refer

        refer(plan, payload, stack, there)
    plan.unmatched = only.unused() + keep.unused()
    return plan


def _keep_twins(plan: Plan, names: Iterable[bytes], kept: Iterable[bytes]) -> None:
    """If one symbol keeps its name, others of the same name have to keep it, too.

    Look-ups by name find the first of them in table order; if it were renamed, they would find another one. Keeping it
    causes no new collision, because the name is introduced in any case. For Xen, names are equal if their first 126
    bytes are. `names` are those of the symbols to rename, in table order; `kept` those of new symbols that stay.
    """
    found = {name[:MAX_NAME] for name in kept}
    twins = [index for index, name in zip(plan.renames, names, strict=True) if name[:MAX_NAME] in found]
    for index in twins:
        plan.outcomes[index] = Outcome.TWIN
        del plan.renames[index]


def _lost_its_mark(plan: Plan, payload: Payload, namer: Namer) -> bool:
    """Whether a file without a mark was mangled: objcopy and strip write new string tables, without the mark.

    Only names with the payload's own build-id prove it: the linker computes that when all names are already given. Any
    other suffix may be the end of a name by chance.
    """
    build_id, view = payload.build_id, payload.elf
    if build_id is None or not build_id.hex().startswith(plan.suffix):
        return False
    carrying = sum(namer.carries(view.symbol_name(index)) for index in plan.renames)
    if carrying < len(plan.renames) and carrying:
        raise PlanError(
            f"{carrying} of its {len(plan.renames)} new symbols {'carries' if carrying == 1 else 'carry'} the suffix "
            f"{plan.suffix} already, others do not",
            hint="it was mangled and changed since; start from the payload as the linker left it",
        )
    return carrying > 0


class _Globs:
    """Shell patterns, each tried on a symbol's whole name and on the part after its last '#'."""

    def __init__(self, globs: Iterable[str]) -> None:
        self.globs = list(globs)
        self._match = list(map(_matcher, self.globs))
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


def _matcher(glob: str) -> Callable[[str], object]:
    import re  # both are slow to load, and few calls have globs
    from fnmatch import translate

    return re.compile(translate(glob)).match


def _check_text(view: elf.Object, renames: dict[int, bytes]) -> None:
    if bytes(view.section_data(view.strtab)).isascii():
        return
    for index in renames:
        try:
            view.symbol_name(index).decode()
        except UnicodeDecodeError as error:
            raise PlanError(
                f"symbol {index}: its name is not UTF-8 text and cannot be written into a manifest: {error.object!r}",
                hint="leave it out with --keep, or give it a readable name in the source",
            ) from None


def _check_kinds(payload: Payload, renames: dict[int, bytes]) -> None:
    """For the loader, a symbol must be of the same kind with its new name as with the old one."""
    view = payload.elf
    rules = SymbolRules([section.flags for section in view.sections], view.machine)
    for index, new in renames.items():
        if new[0] in UNUSUAL and rules.kind(view.symbol(index).st_shndx, new) != Kind.NEW:
            name = elf.text(view.symbol_name(index))
            raise PlanError(
                f"symbol {index} ({name}) would be called {elf.text(new)}, which Xen does not register as a symbol",
                hint="use the default template, or one that does not begin with . or $",
            )


def holds_build_id(view: elf.Object, build_id: bytes | None) -> bool:
    """Whether names contain the payload's full build-id: then lpmangle made them."""
    digits = build_id.hex() if build_id else ""
    return len(digits) >= 16 and view.data.find(digits.encode(), view.strtab.offset, view.strtab.end) >= 0


def _check_build_id(view: elf.Object, build_id: bytes | None) -> None:
    """Refuse a payload with names that contain the build-id, but were made in another way than is asked for."""
    if build_id and holds_build_id(view, build_id):
        raise MangledError(
            f"is already mangled: names hold its build-id {build_id.hex()}",
            hint="it was changed since, by objcopy or strip; start from the payload as the linker left it",
        )


def _check_clashes(view: elf.Object, renames: dict[int, bytes]) -> None:
    """Two symbols may get the same new name only if they had the same old name."""
    in_use: dict[bytes, int] = {}
    for index, new in renames.items():
        first = in_use.setdefault(new, index)
        if first != index and view.symbol_name(first) != view.symbol_name(index):
            raise _clash(view, first, index, new)


def _check_kept(view: elf.Object, plan: Plan) -> None:
    """No new name may equal the name of a symbol that keeps it, in the 126 bytes that Xen compares."""
    in_use = {new: index for index, new in reversed(plan.renames.items())}
    for index, (st_name, _, _, _, _, _) in enumerate(view.symbol_fields()):
        if index in plan.renames:
            continue
        name = view.string(st_name)[:MAX_NAME]
        if name in in_use:
            raise _clash(view, in_use[name], index, name)


def _clash(view: elf.Object, first: int, second: int, new: bytes) -> PlanError:
    names = [view.symbol_name(index) for index in (first, second)]
    one, two, both = map(elf.text, (*names, new))
    return PlanError(
        f"symbols {first} ({one}) and {second} ({two}) would both be called {both}",
        hint="use the default template, which keeps the file part, or another suffix",
    )
