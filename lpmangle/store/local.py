"""Manifests in files: a manifest, a payload that has one inside or beside it, a folder of either."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import attrgetter

from lpmangle import elf
from lpmangle.errors import FileError, LpmangleError, ManifestError, NoManifestError, about
from lpmangle.manifest import embed
from lpmangle.manifest.belongs import belongs, fit
from lpmangle.manifest.format import ENDING, path_beside
from lpmangle.manifest.read import Head, head_in
from lpmangle.store.source import Found, Shape, warn
from lpmangle.system import files, writing

_DEBUG = ".debug"
_BUILD_ID = re.compile(r"[0-9a-f]{40}").fullmatch
_ENDINGS = (ENDING, ".livepatch", _DEBUG)


class LocalSource:
    """All manifests that a path leads to. In a folder, symbols are read only when they are needed."""

    def __init__(self, path: str) -> None:
        """Raises FileError or ManifestError for the path itself; errors in a folder are warnings."""
        self._found: dict[str, Found | None] = {}  # by path; None: in a folder
        self._shapes: dict[tuple[str, str], Shape] = {}  # by template and suffix; one for all full build-ids
        self._by_suffix: dict[str, list[str]] = {}
        self._by_build_id: dict[str, list[str]] = {}
        self._left_out: set[str] = set()
        if os.path.isdir(path):
            self._add_folder(path)
        else:
            found = load(path)
            self._add(found.where, found.head, found)

    def shapes(self) -> Iterable[Shape]:
        return self._shapes.values()

    def with_suffix(self, suffix: str) -> Iterator[Found]:
        return self._sound(self._by_suffix.get(suffix, ()), attrgetter("names"))

    def with_build_id(self, build_id: str) -> Iterator[Found]:
        return self._sound(self._by_build_id.get(build_id, ()), attrgetter("manifest"))

    def candidates(self, pattern: str) -> Iterator[Found]:
        return self._sound(self._found, attrgetter("manifest"))

    def debug_files(self, build_id: str) -> Iterator[str]:
        several = [path.removesuffix(ENDING) for path in self._by_build_id.get(build_id, ())]
        return filter(os.path.exists, several)

    def _add_folder(self, folder: str) -> None:
        for path in paths_in(folder):
            try:
                if head := _head(path):
                    self._add(path, head, None)
            except LpmangleError as error:
                self._leave_out(path, error)

    def _add(self, where: str, head: Head, found: Found | None) -> None:
        self._found[where] = found
        # It also has names of payloads below.
        shapes = [Shape(head.options.template, head.suffix), *(Shape(one.template, one.suffix) for one in head.against)]
        for shape in shapes:
            self._shapes.setdefault((shape.template, "" if _BUILD_ID(shape.suffix) else shape.suffix), shape)
        for suffix in dict.fromkeys(shape.suffix for shape in shapes):
            self._by_suffix.setdefault(suffix, []).append(where)
        if head.build_id:
            self._by_build_id.setdefault(head.build_id, []).append(where)

    def _sound(self, paths: Iterable[str], part: Callable[[Found], object]) -> Iterator[Found]:
        """Those whose `part` can be read. Errors in a file that was named are raised by the reader."""
        for path in paths:
            if found := self._found[path]:
                yield found
                continue
            try:
                if found := _in_file(path):
                    part(found)
                    yield found
            except LpmangleError as error:
                self._leave_out(path, error)

    def _leave_out(self, path: str, error: LpmangleError) -> None:
        if path not in self._left_out:
            self._left_out.add(path)
            leave_out(path, error)


def leave_out(path: str, error: LpmangleError) -> None:
    """Warn of a bad file in a folder; the others are still used."""
    warn(path, f"left out: {error.message}")


def _head(path: str) -> Head | None:
    """The head of the manifest in a file. None for a payload that has no manifest inside.

    Raises FileError, ManifestError, ElfError.
    """
    if path.endswith(ENDING) and (head := head_in(files.start_of(path))):
        return head
    found = _in_file(path)
    return found.head if found else None


def sound(path: str) -> Found | None:
    """The manifest in a file in a folder; None for a payload without one, and, with a warning, for a damaged one."""
    try:
        found = _in_file(path)
        if found:
            found.manifest  # noqa: B018
        return found
    except LpmangleError as error:
        leave_out(path, error)
        return None


def _in_file(path: str) -> Found | None:
    """The manifest in a file in a folder, of the kind that its name says; None for a payload without one inside."""
    content = files.content(path)
    return Found(path, content) if path.endswith(ENDING) else inside(content, path)


def paths_in(folder: str) -> Iterator[str]:
    """The files in a folder, and the folders in it, that may hold manifests, in the order of their names.

    They have the names of manifests, payloads, or files split from these (eu-strip -f). Symbolic links to folders are
    not followed.
    """

    def refuse(error: OSError) -> None:
        refused = FileError(f"cannot read: {error.strerror}", path=error.filename or folder)
        if refused.path == folder:
            raise refused
        leave_out(refused.path, refused)

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(place, name)
            # Most .debug files on a machine are those of programs, some large.
            if name.endswith(_ENDINGS) and (not name.endswith(_DEBUG) or elf.is_relocatable(files.start_of(path))):
                yield path


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
            raise NoManifestError(missing(path), path=path, hint="name its manifest, or a place that has it")
        if not belongs(file.data, found.manifest):
            raise ManifestError(
                f"the manifest beside it, {found.where}, belongs to another payload, or the payload was changed since",
                hint="to use that manifest nevertheless, name it: " + found.where,
            )
    return found


def inside(data: bytes, path: str) -> Found | None:
    """The manifest that is embedded in a payload, or in the .debug file that eu-strip -f has split from it."""
    if data[: len(elf.ELFMAG)] != elf.ELFMAG or embed.SECTION.encode() not in data:
        return None
    with about(path):
        text = embed.extract(elf.parse_sections(data))
    return None if text is None else Found(path, text)


def beside(payload_path: str, payload: bytes) -> Found | None:
    """The manifest beside a payload, or beside the target if `payload_path` is a symbolic link."""
    for path in (path_beside(payload_path), path_beside(os.path.realpath(payload_path))):
        if os.path.exists(path):
            path = writing.fitting(path, partial(fit, payload))
            return Found(path, files.read(path).data)
    return None


def missing(payload_path: str) -> str:
    """The message for a payload without a manifest."""
    return f"has no manifest beside it ({path_beside(payload_path)}) and none inside"
