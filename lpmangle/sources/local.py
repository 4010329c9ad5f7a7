"""Manifests in files: a manifest, a payload that has one inside or beside it, a folder of either."""

import os
from collections.abc import Iterable, Iterator, Sequence

from lpmangle import elf, embed, files
from lpmangle.errors import FileError, LpmangleError, ManifestError, about
from lpmangle.manifest_writer import beside as manifest_beside
from lpmangle.manifest_writer import sha256
from lpmangle.sources import HINT, Found, Shape

MANIFEST_ENDING = ".manifest.json"
_ENDINGS = (MANIFEST_ENDING, ".livepatch")
# As much text of manifests stays in memory; what is above is read again when it is asked for.
KEEP_BYTES = 64 << 20


class LocalSource:
    """All manifests that some paths lead to, each file read once here."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Raises FileError or ManifestError; what is in a folder by chance, and is no manifest, is passed over."""
        self._texts: dict[str, bytes | None] = {}
        self._shapes: dict[str, set[Shape]] = {}  # by path
        self._by_suffix: dict[str, list[str]] = {}
        self._by_build_id: dict[str, list[str]] = {}
        self._kept = 0
        for path in paths:
            if os.path.isdir(path):
                self._add_folder(path)
            else:
                self._add(load(path))

    def shapes(self) -> Iterable[Shape]:
        return {shape for shapes in self._shapes.values() for shape in shapes}

    def with_suffix(self, suffix: str) -> Iterable[Found]:
        return map(self._found, self._by_suffix.get(suffix, ()))

    def with_build_id(self, build_id: str) -> Iterable[Found]:
        return map(self._found, self._by_build_id.get(build_id, ()))

    def candidates(self, pattern: str) -> Iterable[Found]:
        return map(self._found, self._texts)

    def _add_folder(self, folder: str) -> None:
        for found in in_folder(folder):
            try:
                self._add(found)
            except ManifestError:
                continue

    def _add(self, found: Found) -> None:
        if found.where in self._texts:
            return
        head = found.head
        self._kept += len(found.text)
        self._texts[found.where] = found.text if self._kept <= KEEP_BYTES else None
        # It has names of those below it, too.
        shapes = {Shape(head.options.template, head.suffix)} | {Shape(one.template, one.suffix) for one in head.against}
        self._shapes[found.where] = shapes
        for suffix in {shape.suffix for shape in shapes}:
            self._by_suffix.setdefault(suffix, []).append(found.where)
        if head.build_id:
            self._by_build_id.setdefault(head.build_id, []).append(found.where)

    def _found(self, path: str) -> Found:
        text = self._texts[path]
        return load(path) if text is None else Found(path, text)


def in_folder(folder: str) -> Iterator[Found]:
    """What may be manifests in a folder and the folders in it, in the order of their names.

    Payloads count if they have a manifest inside. Symbolic links to folders are not followed.
    """
    for path in paths_in(folder):
        if path.endswith(MANIFEST_ENDING):
            yield Found(path, files.content(path))
            continue
        try:
            found = inside(files.content(path), path)
        except LpmangleError:  # in a folder by chance, or damaged
            continue
        if found:
            yield found


def paths_in(folder: str) -> Iterator[str]:
    """The files in a folder that are named like manifests or payloads."""

    def refuse(error: OSError) -> None:
        raise FileError(f"cannot read: {error.strerror}", path=error.filename or folder)

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        yield from (os.path.join(place, name) for name in sorted(names) if name.endswith(_ENDINGS))


def load(path: str) -> Found:
    """The manifest in `path`, or of the payload `path`. Raises FileError, ManifestError."""
    file = files.read(path)
    if file.data[: len(elf.ELFMAG)] != elf.ELFMAG:
        return Found(path, file.data)
    with about(path):
        if found := inside(file.data, path):
            return found
        found = beside(path, file.data)
        if not found:
            raise FileError(missing(path), path=path, hint=HINT)
        manifest = found.manifest
        if sha256(file.data) not in (manifest.input.sha256, manifest.output.sha256):
            raise ManifestError(
                f"the manifest beside it, {found.where}, belongs to another payload, or the payload was changed since",
                hint="to use that manifest all the same, name it: -m " + found.where,
            )
    return found


def inside(data: bytes, path: str) -> Found | None:
    """The manifest that is embedded in a payload."""
    if data[: len(elf.ELFMAG)] != elf.ELFMAG or embed.SECTION.encode() not in data:
        return None
    with about(path):
        text = embed.extract(elf.parse(data))
    return None if text is None else Found(path, text)


def beside(payload_path: str, payload: bytes) -> Found | None:
    """The manifest beside a payload, or beside the target if `payload_path` is a symbolic link."""
    for path in (manifest_beside(payload_path), manifest_beside(os.path.realpath(payload_path))):
        if os.path.exists(path):
            path = files.fitting(path, payload)
            return Found(path, files.read(path).data)
    return None


def missing(payload_path: str) -> str:
    """What to say when a payload has none."""
    return f"has no manifest beside it ({manifest_beside(payload_path)}) and none inside"
