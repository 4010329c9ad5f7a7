"""The main job from file to file: read, decide, apply, prove, write."""

import os
from collections.abc import Iterable

from lpmangle import elf, files, manifest_writer, splice
from lpmangle.errors import FileError, LpmangleError, about
from lpmangle.plan import Options, Outcome, Plan, make_plan
from lpmangle.xen import LIVEPATCH_MAX_SIZE, Payload

# A payload that other processes keep replacing is given up after as many readings.
ATTEMPTS = 3
# A warning names no more symbols than this; --dry-run lists all.
MOST_NAMES = 20


class Result:
    """What was done with one payload. `warnings` are for people: what still can go wrong."""

    def __init__(self, path: str, output: str, manifest_path: str, view: elf.Object, plan: Plan) -> None:
        self.path = path
        self.output = output
        self.manifest_path = manifest_path
        self.view = view
        self.plan = plan
        self.warnings: list[str] = []

    @property
    def status(self) -> str:
        """`mangled`, `already mangled` or `nothing to rename`."""
        if self.plan.already:
            return "already mangled"
        return "mangled" if self.plan.renames else "nothing to rename"

    def name(self, index: int) -> bytes:
        """The name of symbol number `index` in the input."""
        return self.view.string(self.view.symbol(index).st_name)


def stem_of(path: str) -> str:
    """The name a payload is uploaded by: its file name without the ending."""
    return os.path.splitext(os.path.basename(path))[0]


def mangle_file(
    path: str,
    options: Options,
    output: str | None = None,
    manifest_path: str | None = None,
    *,
    write: bool = True,
) -> Result:
    """Mangle the payload at `path` in place, or into `output`; its manifest goes beside it, or to `manifest_path`.

    A symbolic link is followed to its target. With `write` false nothing is written. Raises LpmangleError; then all
    files are as they were.
    """
    for attempt in range(ATTEMPTS):
        try:
            return _mangle_file(path, options, output or path, manifest_path, write)
        except files.ChangedError:
            # Another process mangled it meanwhile: what we find now decides.
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _mangle_file(path: str, options: Options, output: str, manifest_path: str | None, write: bool) -> Result:
    file = files.read(path)
    target = os.path.realpath(output)
    with about(path):
        view = elf.parse(file.data)
        payload = Payload(view)
        plan = make_plan(payload, options, stem_of(output))
        after = splice.apply(view, plan)
        splice.prove(view, after, plan.renames)
        result = Result(path, target, os.path.realpath(manifest_path or manifest_writer.beside(target)), view, plan)
        _warn(result, len(after))
        if write:
            _write(result, file, payload, after)
    return result


def _write(result: Result, file: files.File, payload: Payload, after: bytes | bytearray) -> None:
    in_place = result.output == file.path
    outputs = []
    if result.manifest_path in (result.output, file.path):
        raise FileError("the manifest would replace the payload", path=result.manifest_path)
    pieces: Iterable[bytes]
    if not result.plan.already:
        pieces = manifest_writer.encode(payload, result.plan, after, stem_of(result.output))
        outputs.append(files.Output(result.manifest_path, pieces))
    elif (found := _existing_manifest(result, file)) is None:
        result.warnings.append("its manifest is missing, without it the original names are lost")
    elif not in_place:
        outputs.append(files.Output(result.manifest_path, (found,)))
    if not in_place or after is not file.data:
        outputs.append(files.Output(result.output, (after,), like=file.state))
    if outputs:
        files.replace(outputs, unchanged=file)


def _existing_manifest(result: Result, file: files.File) -> bytes | None:
    """The manifest of a payload that came to us mangled."""
    from lpmangle.manifest import decode

    digest = manifest_writer.sha256(file.data)
    for path in (result.manifest_path, manifest_writer.beside(file.path)):
        try:
            data = files.read(path).data
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
    for outcome, what, remedy in (
        (Outcome.GLOBAL, "GLOBAL or WEAK", "--scope new renames them too"),
        (
            Outcome.GROUP_SIGNATURE,
            "signatures of section groups",
            "link with ld -r --force-group-allocation",
        ),
    ):
        if indices := plan.indices(outcome):
            names = ", ".join(result.name(index).decode("utf-8", "backslashreplace") for index in indices[:MOST_NAMES])
            more = f" and {len(indices) - MOST_NAMES} more" if len(indices) > MOST_NAMES else ""
            warnings.append(
                f"{len(indices)} new symbols keep their names ({what}) and clash with the same names of any other "
                f"payload: {names}{more}; {remedy}"
            )
    warnings += [f"no new symbol fits {glob!r}" for glob in plan.unmatched]
