"""What is at the places where payload, manifest and reports will be written, and must not be lost."""

import os

from lpmangle.errors import FileError, LpmangleError, PlanError
from lpmangle.manifest import format as manifest_format
from lpmangle.system import files, writing
from lpmangle.system.light import Iterable
from lpmangle.system.records import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lpmangle.jobs.result import Result


def output_place(named: str | None, payload: str) -> str:
    """Where the output for `payload` goes: to the payload itself, or to the path that a user gave. Raises FileError.

    In a folder, or if the path ends with a slash, it gets the name of the payload's file, not of a link to it.
    """
    if named is None:
        return payload
    return os.path.join(named, os.path.basename(files.resolve(payload))) if is_folder(named) else named


def manifest_place(named: str | None, output: str, stem: str, build_id: bytes | None) -> str:
    """Where the manifest of `output` goes: beside it, or to the path that a user has given. Raises FileError.

    A folder, or a path that ends with a slash, may get the manifests of many builds: there the name has the build-id.
    """
    if named is None:
        return files.resolve(manifest_format.path_beside(output))
    if not is_folder(named):
        return files.resolve(named)
    name = stem + (f"-{build_id.hex()}" if build_id else "")
    return files.resolve(os.path.join(named, name + manifest_format.ENDING))


def check_places(result: "Result", *, named: bool) -> None:
    """No output may overwrite a file of another kind, or a manifest that this payload or another one needs.

    `named`: a user has given the path of the manifest. Raises FileError, PlanError.
    """
    start = check_manifest(result.manifest_path)
    check_no_manifest(result.output)
    below = {os.path.realpath(layer.where) for layer in result.stack.layers} if result.stack else set()
    below |= {path.removesuffix(manifest_format.ENDING) for path in below}
    for path in below & {result.output, result.manifest_path}:
        raise FileError("belongs to a payload below that --against names: not replaced", path=path)
    owner = manifest_format.payload_in(start) if named and start else None
    if owner not in (None, manifest_format.payload_name(result.stem)):
        raise FileError(
            f"is the manifest of {owner}: not replaced",
            path=result.manifest_path,
            hint="each payload needs a manifest of its own; without it the original cannot be recovered",
        )
    if start and not result.plan.already and (names := _names_made_before(result, start)):
        raise PlanError(
            f"is already mangled: {names[0]} is a new name in {result.manifest_path}",
            hint="it was changed since, by objcopy or strip; start from the payload as the linker left it",
        )


def is_folder(path: str) -> bool:
    """Whether a path that a user has given means a folder: it is one, or it ends with a slash."""
    return path.endswith("/") or os.path.isdir(path)


def check_manifest(path: str) -> bytes:
    """Raise FileError if another file than a manifest is at `path`. Returns the start of what is there."""
    start = files.start_of(path)
    if start and not manifest_format.begins(start):
        raise FileError(
            "exists and is not a manifest: not replaced",
            path=path,
            hint="name another file with --manifest, or remove this one",
        )
    return start


def check_no_manifest(path: str) -> None:
    """Raise FileError if writing a payload to `path` would overwrite a manifest."""
    if manifest_format.begins(files.start_of(path)):
        raise FileError("is a manifest: not replaced by a payload", path=path)


class ReportKind(NamedTuple):
    """A kind of report: its name, and a text near the beginning of each."""

    what: str
    mark: bytes


JUNIT = ReportKind("a JUnit report", b"<testsuite")
PAGE = ReportKind("an HTML page", b"<!doctype html")


def check_report(path: str, kind: ReportKind) -> None:
    """Raise FileError if something other than such a report is at `path`."""
    start = files.start_of(path)
    if start and kind.mark not in start.lower():
        raise FileError(
            f"exists and is not {kind.what}: not replaced", path=path, hint="name another file, or remove this one"
        )


def write_reports(reports: Iterable[tuple[str, bytes]]) -> None:
    """Write each report to its path, all or none. Raises FileError."""
    if found := [writing.Output(files.resolve(path), (content,)) for path, content in reports]:
        writing.replace(found)


def _names_made_before(result: "Result", start: bytes) -> list[str]:
    """Names in the payload whose originals are in the existing manifest, which would be replaced."""
    view = result.view
    # Its own, and those of the payloads that it was put on, which are indented further. Nearly always the manifest is
    # that of the last build: then its suffix is nowhere in this payload.
    lines = [line for line in start.split(b"\n") if line.startswith((b'  "suffix": "', b'      "suffix": "'))]
    suffixes = filter(None, (line.split(b'"')[3] for line in lines))
    if not any(suffix in view.data for suffix in suffixes):
        return []
    from lpmangle.manifest.read import decode

    try:
        manifest = decode(files.read(result.manifest_path).data)
    except LpmangleError:
        return []
    made = {symbol.name for symbol in manifest.named}
    names = (result.name(index).decode("utf-8", "replace") for index in range(view.symbol_count))
    functions = [one.name for one in manifest.functions if one.name.encode() + b"\0" in view.data]
    return [name for name in names if name in made] + functions
