"""Where manifests come from: a manifest file, or a payload that has one beside it."""

import os
from typing import NamedTuple

from lpmangle import elf, files
from lpmangle.errors import FileError, ManifestError, about
from lpmangle.manifest import Manifest, decode
from lpmangle.manifest_writer import beside as manifest_beside
from lpmangle.manifest_writer import sha256


class Source(NamedTuple):
    """A manifest and the file that it was read from."""

    path: str
    manifest: Manifest


def load(path: str) -> Source:
    """The manifest in `path`, or beside the payload `path`. Raises FileError, ManifestError."""
    file = files.read(path)
    with about(path):
        if file.data[: len(elf.ELFMAG)] != elf.ELFMAG:
            return Source(path, decode(file.data))
        found = beside(path)
        if sha256(file.data) not in (found.manifest.input.sha256, found.manifest.output.sha256):
            raise ManifestError(
                f"the manifest beside it, {found.path}, belongs to another payload, or the payload was changed since",
                hint="to use that manifest all the same, name it: -m " + found.path,
            )
    return found


def beside(payload_path: str) -> Source:
    """The manifest beside a payload, or beside the target if `payload_path` is a symbolic link."""
    paths = [manifest_beside(payload_path), manifest_beside(os.path.realpath(payload_path))]
    for path in paths:
        if os.path.exists(path):
            data = files.read(path).data
            with about(path):
                return Source(path, decode(data))
    raise FileError(f"has no manifest beside it ({paths[0]})", path=payload_path, hint="say where it is with -m")
