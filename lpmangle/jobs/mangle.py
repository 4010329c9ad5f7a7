"""The main job from file to file: read, decide, apply, prove, write."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from lpmangle import elf
from lpmangle.elf import appended as tail
from lpmangle.errors import FileError, LpmangleError, about
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
    """What was done with one payload. `warnings` are for people: what still can go wrong."""

    def __init__(
        self, path: str, output: str, manifest_path: str, payload: Payload, plan: Plan, stack: "Stack | None"
    ) -> None:
        self.path = path
        self.output = output
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


class _Request(NamedTuple):
    """The arguments of `mangle_file`."""

    path: str
    options: Options
    output: str
    manifest_path: str | None
    write: bool
    depfile: str | None
    if_changed: bool
    force: bool
    embedded: bool
    against: "Against | None"


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
) -> Result:
    """Mangle the payload at `path` in place, or into `output`; its manifest goes beside it, or to `manifest_path`.

    A symbolic link is followed to its target. With `write` false nothing is written. `depfile` gets the rule that
    `output` is made of `path`. With `if_changed` a file that has its content already is not written again. With `force`
    a payload is taken that has something appended. With `embedded` the manifest is put into the payload as well. What
    the payload takes from those that it is put on gets the names that it has there if `against` knows them. Raises
    LpmangleError; then all files are as they were.
    """
    request = _Request(
        path, options, output or path, manifest_path, write, depfile, if_changed, force, embedded, against
    )
    for attempt in range(ATTEMPTS):
        try:
            return _mangle_file(request)
        except files.ChangedError:
            # Another process mangled it meanwhile: what we find now decides.
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _mangle_file(request: _Request) -> Result:
    file = files.read(request.path)
    target = files.resolve(request.output)
    manifest_path = files.resolve(request.manifest_path or manifest_format.beside(target))
    stem = stem_of(request.output)
    with about(request.path):
        payload = Payload.parse(file.data)
        view = payload.elf
        stack = request.against.stack_of(payload) if request.against else None
        plan = make_plan(payload, request.options, stem, stack)
        # What is not changed keeps its signature.
        appended = tail.size(view) if plan.changes else 0
        if appended and not request.force:
            raise tail.refusal(view, appended)
        after = splice.apply(view, plan)
        splice.prove(view, after, plan.names, plan.function_names)
        result = Result(request.path, target, manifest_path, payload, plan, stack)
        result.write = request.write
        text = None
        if request.embedded:
            from lpmangle.manifest import embed

            if plan.changes:
                text = b"".join(manifest_writer.encode(payload, plan, after, stem, embedded=True, stack=stack))
                after = embed.add(after, text)
            elif plan.already and not view.section_named(embed.SECTION):
                result.warnings.append("its manifest is not embedded; for that restore it first and mangle it again")
        if appended:
            result.warnings.append(
                f"{tail.describe(file.data, appended)} stay as they were; a signature fits no longer"
            )
        _warn(result, len(after))
        if request.write:
            _write(result, file, after, text, request)
    return result


def _write(result: Result, file: files.File, after: bytes | bytearray, text: bytes | None, request: _Request) -> None:
    in_place = result.output == file.path
    targets.check(result, stem_of(result.output), named=request.manifest_path is not None)
    outputs = [_rule(request, result)] if request.depfile else []
    if result.manifest_path in (result.output, file.path):
        raise FileError("the manifest would replace the payload", path=result.manifest_path)
    pieces: Iterable[bytes]
    if not result.plan.already:
        stem = stem_of(result.output)
        pieces = manifest_writer.encode(result.payload, result.plan, after, stem, stack=result.stack)
        outputs.append(files.Output(result.manifest_path, [text] if text else pieces))
    elif (found := _existing_manifest(result, file)) is None:
        result.warnings.append(f"no manifest fits it ({result.manifest_path}): its original names are lost without")
    elif not in_place:
        outputs.append(files.Output(result.manifest_path, (found,)))
    if not in_place or after is not file.data:
        outputs.append(files.Output(result.output, (after,), like=file.state))
    if request.if_changed:
        outputs = [output for output in map(_in_one_piece, outputs) if not _is_there(output)]
        result.unchanged = not in_place and result.output not in [output.path for output in outputs]
    if outputs:
        files.replace(outputs, unchanged=file)


def _rule(request: _Request, result: Result) -> files.Output:
    """What the output is made of: the payload, and the files that said what those below it are called."""
    from lpmangle.jobs import depfile as dependencies

    assert request.depfile
    layers = result.stack.layers if result.stack else ()
    below = [layer.where for layer in layers if os.path.isfile(layer.where)]
    if request.against and request.against.xen:
        below.append(request.against.xen)
    target = files.resolve(request.depfile)
    dependencies.check(target, result.output, result.manifest_path, request.path, *below)
    return files.Output(target, (dependencies.rule(request.output, request.path, *below),))


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
    for outcome, what, remedy in (
        (Outcome.GLOBAL, "GLOBAL or WEAK", "--scope new renames them too"),
        (
            Outcome.GROUP_SIGNATURE,
            "signatures of section groups",
            "link with ld -r --force-group-allocation",
        ),
    ):
        if indices := plan.indices(outcome):
            names = ", ".join(elf.text(result.name(index)) for index in indices[:MOST_NAMES])
            more = f" and {len(indices) - MOST_NAMES} more" if len(indices) > MOST_NAMES else ""
            warnings.append(
                f"{len(indices)} new symbols keep their names ({what}) and clash with the same names of any other "
                f"payload: {names}{more}; {remedy}"
            )
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
