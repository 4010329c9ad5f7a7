"""Manifests in files: a manifest, a payload that has one inside or beside it, a folder of either."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from lpmangle import elf
from lpmangle.errors import FileError, LpmangleError, ManifestError, about
from lpmangle.manifest import embed
from lpmangle.manifest.read import Head, decode_head
from lpmangle.manifest.write import ENDING, sha256
from lpmangle.manifest.write import beside as manifest_beside
from lpmangle.store.source import Found, Shape, warn
from lpmangle.system import files

_ENDINGS = (ENDING, ".livepatch")


class LocalSource:
    """All manifests that some paths lead to. Of those in folders the symbols are read when they are asked for."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Raises FileError or ManifestError; what is in a folder by chance, and is no manifest, is passed over."""
        self._texts: dict[str, bytes | None] = {}  # by path; None: to be read
        self._shapes: set[Shape] = set()
        self._by_suffix: dict[str, list[str]] = {}
        self._by_build_id: dict[str, list[str]] = {}
        for path in paths:
            if os.path.isdir(path):
                self._add_folder(path)
            else:
                found = load(path)
                self._add(found.where, found.head, found.text)

    def shapes(self) -> Iterable[Shape]:
        return self._shapes

    def with_suffix(self, suffix: str) -> Iterable[Found]:
        return map(self._found, self._by_suffix.get(suffix, ()))

    def with_build_id(self, build_id: str) -> Iterable[Found]:
        return map(self._found, self._by_build_id.get(build_id, ()))

    def candidates(self, pattern: str) -> Iterator[Found]:
        for path in self._texts:
            found = self._found(path)
            try:
                found.head  # noqa: B018
            except ManifestError as error:  # where a folder was named, its head alone has been read
                warn(f"{path}: left out: {error.message}")
                continue
            yield found

    def debug_files(self, build_id: str) -> Iterable[str]:
        several = [path.removesuffix(ENDING) for path in self._by_build_id.get(build_id, ())]
        return filter(os.path.exists, several)

    def _add_folder(self, folder: str) -> None:
        for path in paths_in(folder):
            if path.endswith(ENDING):
                with suppress(ManifestError):
                    self._add(path, _head(path), None)
            elif found := _in_payload(path):
                with suppress(ManifestError):
                    self._add(path, found.head, None)

    def _add(self, where: str, head: Head, text: bytes | None) -> None:
        if where in self._texts:
            return
        self._texts[where] = text
        # It has names of those below it, too.
        shapes = {Shape(head.options.template, head.suffix)} | {Shape(one.template, one.suffix) for one in head.against}
        self._shapes |= shapes
        for suffix in {shape.suffix for shape in shapes}:
            self._by_suffix.setdefault(suffix, []).append(where)
        if head.build_id:
            self._by_build_id.setdefault(head.build_id, []).append(where)

    def _found(self, path: str) -> Found:
        text = self._texts[path]
        if text is None:
            return Found(path, files.content(path)) if path.endswith(ENDING) else load(path)
        return Found(path, text)


def _head(path: str) -> Head:
    """The head of a manifest, without its symbols if they stand last, where lpmangle puts them. Raises ManifestError.

    They are nine tenths of the time that a thousand manifests take.
    """
    start, symbols, _ = files.start_of(path).partition(b'"symbols": [')
    if symbols:
        with suppress(ManifestError):
            return decode_head(start + symbols + b"]}")
    return Found(path, files.content(path)).head


def in_folder(folder: str) -> Iterator[Found]:
    """What may be manifests in a folder and the folders in it, in the order of their names.

    Payloads count if they have a manifest inside. Symbolic links to folders are not followed.
    """
    for path in paths_in(folder):
        if path.endswith(ENDING):
            yield Found(path, files.content(path))
        elif found := _in_payload(path):
            yield found


def _in_payload(path: str) -> Found | None:
    """The manifest inside a file that is named like a payload; it may be there by chance, or damaged."""
    with suppress(LpmangleError):
        return inside(files.content(path), path)
    return None


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
            raise FileError(missing(path), path=path, hint="name its manifest itself, or a place that has it")
        manifest = found.manifest
        if sha256(file.data) not in (manifest.input.sha256, manifest.output.sha256):
            raise ManifestError(
                f"the manifest beside it, {found.where}, belongs to another payload, or the payload was changed since",
                hint="to use that manifest all the same, name it itself: " + found.where,
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
