"""Reads files as a whole: what a path leads to, its content, its digest. (`writing` replaces files.)"""

import os
import stat
import sys

from lpmangle.errors import FileError
from lpmangle.system.light import Callable
from lpmangle.system.records import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any

# Far above any payload (Xen accepts 2 MiB); keeps a file given by mistake, such as a disk image, out of memory.
MAX_BYTES = 1 << 30
# OpenSSL hashes faster, but loading it takes as long as hashing this many bytes without it.
_OPENSSL_BYTES = 1 << 19
_OWN_SHA256 = "_sha2" if sys.version_info >= (3, 12) else "_sha256"
_hashed = [0]  # bytes, by this process
# What can be at a path (`kind`).
REGULAR, FOLDER = "a regular file", "a folder"
_KINDS = {
    stat.S_IFREG: REGULAR,
    stat.S_IFDIR: FOLDER,
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_STREAM = "a stream"
_MOST_LINKS = 40  # that Linux follows in one path (path_resolution(7))


class File(NamedTuple):
    """What was read, and the state of the file at that time. If a symbolic link was given, `path` is its target."""

    path: str
    data: bytes
    state: os.stat_result


def read(path: str) -> File:
    """Read a regular file. Raises FileError."""
    data, state = _read(path)
    return File(resolve(path), data, state)


def kind(path: str) -> str | None:
    """What `path` leads to: REGULAR, FOLDER, a FIFO, a socket, a device, or a stream; None if there is nothing.

    A stream is an open file of the process, such as /dev/stdin, under a name that is not the file's own. Raises
    FileError if that cannot be found out.
    """
    try:
        if _is_stream(path):
            return _STREAM
        return kind_of(os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise file_error("cannot read", path, error) from None


def identity(path: str) -> tuple[int, int]:
    """What identifies the file that `path` leads to, whatever its name. Raises FileError."""
    try:
        state = os.stat(path)
    except (OSError, ValueError) as error:
        raise file_error("cannot read", path, error) from None
    return state.st_dev, state.st_ino


def kind_of(state: os.stat_result) -> str:
    return _KINDS.get(stat.S_IFMT(state.st_mode), "of an unknown kind")


def _is_stream(path: str) -> bool:
    """Whether symbolic links lead to /proc/PID/fd/N, which looks like one more link (proc(5))."""
    for _ in range(_MOST_LINKS):
        if not os.path.islink(path):
            return False
        folder = os.path.realpath(os.path.dirname(path))
        if folder.startswith("/proc/") and folder.endswith("/fd"):
            return True
        path = os.path.join(folder, os.readlink(path))
    return False


def resolve(path: str) -> str:
    """Where `path` leads, through symbolic links; the file need not exist. Raises FileError, also for a stream."""
    try:
        if _is_stream(path):
            raise not_regular(_STREAM, path)
        return os.path.realpath(path, strict=True)
    except FileNotFoundError:
        return os.path.realpath(path)
    except (OSError, ValueError) as error:  # without strict, a link that cannot be read counts as a file
        raise file_error("cannot read", path, error) from None


def content(path: str) -> bytes:
    """The same without resolving the path, for reading a thousand files."""
    return _read(path)[0]


def _read(path: str) -> tuple[bytes, os.stat_result]:
    try:
        # O_NONBLOCK: opening a FIFO by mistake must not hang.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb", buffering=0) as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise not_regular(kind_of(state), path)
            if state.st_size > MAX_BYTES:
                raise FileError(f"is too large ({state.st_size} bytes)", path=path)
            return file.read(), state
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise file_error("cannot read", path, error) from None


def start_of(path: str) -> bytes:
    """The first 4096 bytes of the file at `path`; empty if there is none, or it cannot be read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:  # without a file object: a folder may have a thousand manifests
            return os.read(file, 4096)
        finally:
            os.close(file)
    except OSError:  # errors of the path are reported when it is written
        return b""


def not_regular(kind: str, path: str) -> FileError:
    return FileError(f"is {kind}, not a regular file", path=path)


def file_error(what: str, path: str, error: Exception) -> FileError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return FileError(f"{what}: {reason}", path=path)


def sha256(data: bytes | bytearray) -> str:
    """SHA-256 of a file's content, in hex."""
    _hashed[0] += len(data)
    own = _own_sha256() if _hashed[0] < _OPENSSL_BYTES else None
    digest: str = (own or _openssl_sha256())(data).hexdigest()
    return digest


def _own_sha256() -> "Callable[[bytes | bytearray], Any] | None":
    """Python's own, without what is slow to load (as its random.py does)."""
    try:
        own: Callable[[bytes | bytearray], Any] = __import__(_OWN_SHA256).sha256
    except ImportError:
        return None
    return own


def _openssl_sha256() -> "Callable[[bytes | bytearray], Any]":
    import hashlib

    return hashlib.sha256
