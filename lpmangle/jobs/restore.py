"""Back to the original, from file to file."""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from lpmangle import elf
from lpmangle.elf import appended
from lpmangle.errors import LpmangleError, ManifestError, about
from lpmangle.jobs import outputs
from lpmangle.jobs.manifest_of import manifest_of
from lpmangle.manifest import embed
from lpmangle.manifest.belongs import belongs
from lpmangle.manifest.read import Manifest
from lpmangle.manifest.rebuild import NO_FRAME, rebuild
from lpmangle.manifest.undo import undo
from lpmangle.system import files, writing
from lpmangle.system.files import sha256
from lpmangle.verify import rewritten


class Restored(NamedTuple):
    """Where the original is now, and its SHA-256; `status` is `restored` or `is the original already`.

    `place` is the output as it was given, `output` the file that this path leads to.
    """

    path: str
    place: str
    output: str
    status: str
    sha256: str


def restore_file(
    path: str, source: str | None = None, output: str | None = None, links: Sequence[str] = ()
) -> Restored:
    """Turn the mangled payload at `path` back into the original, byte for byte, in place or into `output`.

    That may be a folder (`output_place`). The manifest is found as by `verify_file`. `links` are other paths of the
    payload (hard links), which lead to the original as well if it is restored in place. Raises LpmangleError; then all
    files are as they were.
    """
    file = files.read(path)
    manifest = manifest_of(file, path, source)
    place = outputs.output_place(output, path)
    target = files.resolve(place)
    with about(path):
        status, original = _original(file.data, manifest)
    outputs.check_no_manifest(target)
    if target != file.path or original is not file.data:
        links = links if target == file.path else ()
        writing.replace([writing.Output(target, (original,), like=file.state, links=links)], unchanged=file)
    return Restored(path, place, target, status, manifest.input.sha256)


def original_of(file: files.File, path: str, place: str | None) -> bytes | None:
    """The original of a mangled payload, proven; None if it cannot be recovered.

    Its manifest is where `restore_file` finds it, or at `place`, where the user wants manifests to be written.
    """
    for source in (None, place):
        if source is None or files.kind(source):
            with suppress(LpmangleError):
                return _original(file.data, manifest_of(file, path, source))[1]
    return None


def _original(data: bytes, manifest: Manifest) -> tuple[str, bytes]:
    """Raises ManifestError if the manifest does not lead back to the original."""
    view = elf.parse(data)
    if size := appended.size(view):  # a signature, which the original does not have
        view = elf.parse(data[:-size])
    mangled = embed.without(view)
    digest = sha256(mangled.data)
    if digest == manifest.input.sha256:
        return ("restored", mangled.data) if size else ("is the original already", data)
    if digest == manifest.output.sha256:
        return "restored", undo(mangled, manifest)
    if rewritten.is_unmangled(mangled, manifest):
        raise ManifestError(
            "is not mangled, and its manifest belongs to another payload or another build",
            hint="there is nothing to restore; take the file that lpmangle wrote",
        )
    rebuilt = rebuild(view, manifest) if manifest.frame is not None else None
    if rebuilt and rebuilt.proven:
        return "restored", rebuilt.view.data
    if not belongs(data, manifest):
        why = "was changed since, or the manifest belongs to another payload"
    elif rebuilt is None:
        why = f"was rewritten since (by a signer, objcopy or strip), and {NO_FRAME}"
    else:
        changed = ", ".join(one.name for one in rebuilt.changed)
        why = f"was changed since, in section {changed}" if changed else "leads to another original"
    raise ManifestError(
        f"is not what lpmangle wrote: it {why}",
        hint="take the file as lpmangle left it (before signing or stripping), or its own manifest with -m",
    )
