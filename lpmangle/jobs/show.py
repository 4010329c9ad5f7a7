"""A payload looked at, from file to values."""

import os
from typing import TYPE_CHECKING, NamedTuple

from lpmangle.errors import LpmangleError, NoManifestError, about
from lpmangle.manifest.embed import SECTION
from lpmangle.manifest.format import beside
from lpmangle.review.inventory import Inventory, take_inventory
from lpmangle.review.subject import Subject
from lpmangle.system import files
from lpmangle.xen.payload import Payload

if TYPE_CHECKING:
    from lpmangle.manifest.read import Manifest


class Shown(NamedTuple):
    """One payload: all about it, and its manifest, None if there is none."""

    path: str
    inventory: Inventory
    manifest: "Manifest | None"


def show_file(path: str, source: str | None = None) -> Shown:
    """What the payload at `path` is and does, by its original names.

    The names are those of the manifest at `source`, a word as `lpmangle show -m` takes it; else of that inside the
    payload, beside it, or from LPMANGLE_MANIFESTS and DEBUGINFOD_URLS; without one what the mark in the file tells.
    Raises LpmangleError for a file that cannot be read or is no payload; of what is damaged inside
    `inventory.trouble` tells.
    """
    subject, manifest = read_subject(path, source)
    return Shown(path, take_inventory(subject), manifest)


def read_subject(path: str, source: str | None = None) -> "tuple[Subject, Manifest | None]":
    """A payload with its original names, and the manifest that they are from. Raises LpmangleError."""
    file = files.read(path)
    with about(path):
        payload = Payload.parse(file.data)
    bare = Subject(payload)
    if not (source or bare.mark or SECTION.encode() in file.data or _is_beside(path)):
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


def _is_beside(path: str) -> bool:
    return any(os.path.exists(beside(place)) for place in (path, os.path.realpath(path)))


def _manifest(file: files.File, path: str, source: str | None, payload: Payload) -> "tuple[Manifest | None, list[str]]":
    """That of the payload; one that is named and wrong is an error, one that is found and wrong left out, and told."""
    from lpmangle.jobs.manifest_of import manifest_of  # loads msgspec

    try:
        manifest = manifest_of(file, path, source)
        with about(path):
            if manifest.build_id != (payload.build_id and payload.build_id.hex()):
                raise NoManifestError("the manifest that was found is another payload's: it has another build-id")
    except NoManifestError as error:
        if source:
            raise
        # Whether it is mangled is told by its mark.
        return None, [error.message] if "another" in error.message else []
    except LpmangleError as error:
        if source:
            raise
        return None, [f"its manifest cannot be used: {error.message}"]
    return manifest, []
