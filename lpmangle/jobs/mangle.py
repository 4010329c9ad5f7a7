"""The main job from file to file: read, decide, apply, prove, write."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from lpmangle import elf
from lpmangle.elf import appended as tail
from lpmangle.errors import FileError, LpmangleError, about, counted
from lpmangle.jobs import outputs as targets
from lpmangle.mangle import apply as splice
from lpmangle.mangle.decide import make_plan
from lpmangle.mangle.names import stem_of
from lpmangle.mangle.plan import Options, Outcome, Plan
from lpmangle.manifest import format as manifest_format
from lpmangle.manifest import write as manifest_writer
from lpmangle.system import files
from lpmangle.system.files import sha256
from lpmangle.xen.abi import FUNCS_SECTION, HOOKS_PREFIX, LIVEPATCH_MAX_SIZE
from lpmangle.xen.payload import Payload

if TYPE_CHECKING:
    from lpmangle.jobs.against import Against
    from lpmangle.mangle.stack import Stack

# A payload that other processes keep replacing is given up after as many readings.
ATTEMPTS = 3
# A warning names no more symbols than this; --dry-run lists all.
MOST_NAMES = 20


class Result:
    """What was done with one payload. `warnings` are for people: what still can go wrong.

    `place` is the output as it was asked for, `output` the file that this leads to, and `stem` what the payload is
    uploaded as: that file's name without its ending.
    """

    def __init__(
        self,
        path: str,
        place: str,
        output: str,
        stem: str,
        manifest_path: str,
        payload: Payload,
        plan: Plan,
        stack: "Stack | None",
    ) -> None:
        self.path = path
        self.place = place
        self.output = output
        self.stem = stem
        self.manifest_path = manifest_path
        self.payload = payload
        self.view = payload.elf
        self.plan = plan
        self.stack = stack
        self.warnings: list[str] = []
        self.unchanged = False
        self.write = True

    @property
    def status(self) -> str:
        """`mangled`, `already mangled`, `nothing to rename`, or `unchanged`: mangled before from the same input.

        `would be mangled` where nothing was to be written.
        """
        if self.plan.already:
            return "already mangled"
        if self.unchanged:
            return "unchanged"
        if not self.plan.changes:
            return "nothing to rename"
        return "mangled" if self.write else "would be mangled"

    def name(self, index: int) -> bytes:
        """The name of symbol number `index` in the input."""
        return self.view.string(self.view.symbol(index).st_name)


class Request(NamedTuple):
    """What is asked for, see `mangle_file`."""

    path: str
    options: Options
    output: str | None = None
    manifest_path: str | None = None
    depfile: str | None = None
    if_changed: bool = False
    force: bool = False
    embedded: bool = False
    against: "Against | None" = None
    links: Sequence[str] = ()


def mangle_file(
    path: str,
    options: Options,
    output: str | None = None,
    manifest_path: str | None = None,
    *,
    write: bool = True,
    depfile: str | None = None,
    if_changed: bool = False,
    force: bool = False,
    embedded: bool = False,
    against: "Against | None" = None,
    links: Sequence[str] = (),
) -> Result:
    """Mangle the payload at `path` in place, or into `output`; its manifest goes beside it, or to `manifest_path`.

    A symbolic link is followed to its target; `links` are other paths of the payload (hard links), which lead to what
    becomes of it in place as well. Both places may be folders, see `targets.place` and `targets.manifest_place`. With
    `write` false nothing is written. `depfile` gets the rule that `output` is made of `path`. With `if_changed` a file
    that has its content already is not written again. With `force` a payload is taken that has something appended. With
    `embedded` the manifest is put into the payload as well. What the payload takes from those that it is put on gets
    the names that it has there if `against` knows them. Raises LpmangleError; then all files are as they were.
    """
    request = Request(path, options, output, manifest_path, depfile, if_changed, force, embedded, against, links)

    def mangle() -> Result:
        prepared = prepare(request, files.read(path))
        if write:
            prepared.write()
        else:
            prepared.result.write = False
        return prepared.result

    return until_unchanged(mangle)


def until_unchanged(work: Callable[[], Result]) -> Result:
    """`work` done again if another process has mangled the payload meanwhile: what is found then decides."""
    for _ in range(ATTEMPTS - 1):
        with suppress(files.ChangedError):
            return work()
    return work()


class Prepared:
    """A payload that is mangled and proven; `data` is what it becomes. Nothing is written yet."""

    def __init__(
        self, request: Request, file: files.File, result: Result, data: bytes | bytearray, text: bytes | None
    ) -> None:
        """`file` is what was read; `text` is the manifest if it is made already."""
        self.result = result
        self.data = data
        self._request = request
        self._file = file
        self._text = text

    def write(self, data: bytes | bytearray | None = None, catalog: str | None = None) -> None:
        """Write what is asked for, all or nothing; the manifest into the catalog there, too. Raises LpmangleError.

        `data` is what to write in place of the payload if something was done to it since, such as signing.
        """
        request, result, file = self._request, self.result, self._file
        data = self.data if data is None else data
        in_place = result.output == file.path
        targets.check(result, named=request.manifest_path is not None)
        outputs = [_rule(request, result)] if request.depfile else []
        if result.manifest_path in (result.output, file.path):
            raise FileError("the manifest would replace the payload", path=result.manifest_path)
        manifest = self._manifest()
        if manifest is None:
            result.warnings.append(f"no manifest fits it ({result.manifest_path}): its original names are lost without")
        elif catalog:
            manifest = _in_one_piece(manifest)
        if manifest and not (result.plan.already and in_place and (not request.manifest_path or _is_there(manifest))):
            outputs.append(manifest)
        if not in_place or data is not file.data:
            links = request.links if in_place else ()
            outputs.append(files.Output(result.output, (data,), like=file.state, links=links))
        if request.if_changed:
            outputs = [output for output in map(_in_one_piece, outputs) if not _is_there(output)]
            result.unchanged = not in_place and result.output not in [output.path for output in outputs]
        if catalog and manifest:
            from lpmangle.store.catalog import adding  # loads sqlite3
            from lpmangle.store.source import Found  # loads msgspec

            with adding(catalog, Found(manifest.path, b"".join(manifest.pieces))) as commit:
                files.replace(outputs, unchanged=file, before_last=commit) if outputs else commit()
        elif outputs:
            files.replace(outputs, unchanged=file)

    def _manifest(self) -> files.Output | None:
        """None if the payload came to us mangled and no manifest fits it."""
        result = self.result
        pieces: Iterable[bytes]
        if not result.plan.already:
            pieces = manifest_writer.encode(result.payload, result.plan, self.data, result.stem, stack=result.stack)
            pieces = [self._text] if self._text else pieces
        elif (found := _existing_manifest(result, self._file)) is None:
            return None
        else:
            pieces = [found]
        return files.Output(result.manifest_path, pieces)


def prepare(request: Request, file: files.File, data: bytes | None = None) -> Prepared:
    """Mangle what was read from `request.path`, and prove it; nothing is written. Raises LpmangleError.

    `data` is what to mangle in place of the file's content if something was done to it since, such as stripping.
    """
    data = file.data if data is None else data
    place = targets.place(request.output, request.path)
    target = files.resolve(place)
    stem = stem_of(target)
    with about(request.path):
        payload = Payload.parse(data)
        view = payload.elf
        stack = request.against.stack_of(payload) if request.against else None
        plan = make_plan(payload, request.options, stem, stack)
        # What is not changed keeps its signature.
        appended = tail.size(view) if plan.changes else 0
        if appended and not request.force:
            raise tail.refusal(view, appended)
        after = splice.apply(view, plan)
        splice.prove(view, after, plan.names, plan.function_names)
        manifest_path = targets.manifest_place(request.manifest_path, target, stem, payload.build_id)
        result = Result(request.path, place, target, stem, manifest_path, payload, plan, stack)
        text = None
        if request.embedded:
            from lpmangle.manifest import embed

            if plan.changes:
                text = b"".join(manifest_writer.encode(payload, plan, after, stem, embedded=True, stack=stack))
                after = embed.add(after, text)
            elif plan.already and not view.section_named(embed.SECTION):
                result.warnings.append("its manifest is not embedded; for that restore it first and mangle it again")
        if appended:
            what = tail.describe(data, appended, "stays as it was", "stay as they were")
            result.warnings.append(f"{what}; a signature fits no longer")
        _warn(result, len(after))
    return Prepared(request, file, result, after, text)


def _rule(request: Request, result: Result) -> files.Output:
    """What the output is made of: the payload, and the files that said what those below it are called."""
    from lpmangle.jobs import depfile as dependencies

    assert request.depfile
    layers = result.stack.layers if result.stack else ()
    below = [layer.where for layer in layers if os.path.isfile(layer.where)]
    if request.against and request.against.xen:
        below.append(request.against.xen)
    target = files.resolve(request.depfile)
    dependencies.check(target, result.output, result.manifest_path, request.path, *below)
    return files.Output(target, (dependencies.rule(result.place, request.path, *below),))


def _in_one_piece(output: files.Output) -> files.Output:
    return output._replace(pieces=(b"".join(output.pieces),))


def _is_there(output: files.Output) -> bool:
    """Whether the file has that content already."""
    try:
        return (files.read(output.path).data,) == output.pieces
    except FileError:
        return False


def _existing_manifest(result: Result, file: files.File) -> bytes | None:
    """The manifest of a payload that came to us mangled."""
    from lpmangle.manifest import embed
    from lpmangle.manifest.read import decode

    if (text := embed.extract(result.view)) is not None:
        return text
    digest = sha256(file.data)
    for path in (result.manifest_path, manifest_format.beside(file.path)):
        try:
            data = files.read(files.fitting(path, file.data)).data
            if decode(data).output.sha256 == digest:
                return data
        except LpmangleError:
            continue
    return None


def _warn(result: Result, size: int) -> None:
    plan, warnings = result.plan, result.warnings
    if size > LIVEPATCH_MAX_SIZE:
        warnings.append(
            f"has {size} bytes, Xen refuses more than {LIVEPATCH_MAX_SIZE}; "
            "strip -g takes debug information out (run it before lpmangle)"
        )
    if not any(s.name == FUNCS_SECTION or s.name.startswith(HOOKS_PREFIX) for s in result.view.sections):
        warnings.append(f"has no {FUNCS_SECTION} and no {HOOKS_PREFIX}*: Xen will find nothing to patch")
    for outcome, one, several, remedy in (
        (Outcome.GLOBAL, "GLOBAL or WEAK", "GLOBAL or WEAK", "--scope new renames these too"),
        (
            Outcome.GROUP_SIGNATURE,
            "signature of a section group",
            "signatures of section groups",
            "link with ld -r --force-group-allocation",
        ),
    ):
        if indices := plan.indices(outcome):
            names = ", ".join(elf.text(result.name(index)) for index in indices[:MOST_NAMES])
            more = f" and {len(indices) - MOST_NAMES} more" if len(indices) > MOST_NAMES else ""
            symbols = counted(
                len(indices),
                f"new symbol keeps its name ({one}) and clashes with the same name",
                f"new symbols keep their names ({several}) and clash with the same names",
            )
            warnings.append(f"{symbols} of any other payload: {names}{more}; {remedy}")
    warnings += [f"no new symbol fits {glob!r}" for glob in plan.unmatched]
    if result.stack:
        warnings += result.stack.warnings()
    elif not plan.already:
        warnings += _missing_stack_warnings(result.payload)


def _missing_stack_warnings(payload: Payload) -> Iterable[str]:
    """A payload on top of another one, by its notes, is likely to take something from it."""
    depends, xen_depends = payload.depends, payload.xen_depends
    if depends and xen_depends and depends != xen_depends:
        yield (
            f"is put on the payload with build-id {depends.hex()}; if that one is mangled, what this one takes from it "
            "has another name there: --against PAYLOAD"
        )
