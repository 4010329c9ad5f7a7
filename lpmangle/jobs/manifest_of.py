"""The manifest of one payload; if there is none, whether the payload is mangled."""

from lpmangle import elf
from lpmangle.elf.other import linux_module
from lpmangle.errors import NoManifestError, about
from lpmangle.mangle import mark
from lpmangle.mangle.decide import holds_build_id
from lpmangle.manifest.read import Manifest
from lpmangle.store.open import of_payload
from lpmangle.system.files import File
from lpmangle.xen.payload import Payload


def manifest_of(payload: File, path: str, source: str | None) -> Manifest:
    """From `source`, a word as for -m; else from inside it, beside it, or from the environment.

    `path` is the payload as the user calls it. Raises NoManifestError, which says whether the payload is mangled, and
    ElfError, ManifestError, FileError.
    """
    try:
        return of_payload(payload, path, source).manifest
    except NoManifestError as error:
        if error.path != path:  # another payload, which should have had this one's manifest
            raise
        with about(path):
            raise _explained(error, elf.parse(payload.data)) from None


def _explained(error: NoManifestError, view: elf.Object) -> NoManifestError:
    if what := linux_module(view):
        return NoManifestError(what, path=error.path)
    if mark.find(view):
        return NoManifestError(f"is mangled, but {error.message}", hint=error.hint, path=error.path)
    if holds_build_id(view, Payload(view).build_id):
        what = "is mangled, was changed since by objcopy or strip, and"
        return NoManifestError(f"{what} {error.message}", hint=error.hint, path=error.path)
    return NoManifestError(
        f"is not mangled (it has no mark), and {error.message}",
        hint="if objcopy or strip rewrote it after it was mangled, name its manifest with -m",
        path=error.path,
    )
