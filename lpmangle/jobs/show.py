"""What a payload is and does, from file to values."""

from typing import TYPE_CHECKING, NamedTuple

from lpmangle.errors import LpmangleError, NoManifestError, about
from lpmangle.manifest.embed import may_have_manifest
from lpmangle.review.inventory import Inventory, take_inventory
from lpmangle.review.subject import Subject
from lpmangle.system import files
from lpmangle.xen.payload import Payload

if TYPE_CHECKING:
    from lpmangle.manifest.read import Manifest


class Shown(NamedTuple):
    """One payload: everything about it, and its manifest, None if there is none."""

    path: str
    inventory: Inventory
    manifest: "Manifest | None"


def show_file(path: str, source: str | None = None) -> Shown:
    """What the payload at `path` is and does, by its original names.

    The names are from the manifest at `source`, a word as for `lpmangle show -m`; else from the one inside the payload,
    beside it, or in LPMANGLE_MANIFESTS and DEBUGINFOD_URLS; without a manifest they are derived from the mark in the
    file. Raises LpmangleError for a file that cannot be read or is not a payload; `inventory.trouble` says what is
    damaged inside.
    """
    subject, manifest = read_subject(path, source)
    return Shown(path, take_inventory(subject), manifest)


def read_subject(path: str, source: str | None = None) -> "tuple[Subject, Manifest | None]":
    """A payload with its original names, and the manifest that they are from. Raises LpmangleError."""
    file = files.read(path)
    with about(path):
        payload = Payload.parse(file.data)
    bare = Subject(payload)
    if not (source or bare.mark or may_have_manifest(path, file.data)):
        return bare, None
    manifest, trouble = _manifest(file, path, source, payload)
    if manifest is None:
        bare.trouble += trouble
        return bare, None
    originals = {one.name.encode(): one.original.encode() for one in (*manifest.named, *manifest.functions)}
    subject = Subject(payload, originals)
    subject.notes = [f"{note.key}={note.value}" for note in manifest.notes]
    subject.source = manifest.source.sha256 if manifest.source else None
    return subject, manifest


def _manifest(file: files.File, path: str, source: str | None, payload: Payload) -> "tuple[Manifest | None, list[str]]":
    """The manifest of the payload. A wrong one is an error if it was named; if it was found, a reported trouble."""
    from lpmangle.jobs.manifest_of import manifest_of  # loads msgspec

    try:
        manifest = manifest_of(file, path, source)
        with about(path):
            if manifest.build_id != (payload.build_id and payload.build_id.hex()):
                raise NoManifestError("the manifest that was found belongs to another payload: it has another build-id")
    except NoManifestError as error:
        if source:
            raise
        # Its mark says whether it is mangled.
        return None, [error.message] if "another" in error.message else []
    except LpmangleError as error:
        if source:
            raise
        return None, [f"its manifest cannot be used: {error.message}"]
    return manifest, []
