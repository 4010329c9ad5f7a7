"""Files are read whole and replaced whole: at every moment a path holds its old content or its new one.

New content goes to a temporary file in the same folder, is synced, and takes its place by rename. Several outputs that
belong together (manifest, then payload) are all written before the first is renamed, and go back if a later one fails.
If the process is killed between two renames, the old payload's manifest is where `fitting` finds it.
"""

import errno
import fcntl
import os
import signal
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from lpmangle.errors import FileError
from lpmangle.records import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any

# Far above any payload (Xen takes 2 MiB); keeps a path given by mistake, such as a disk image, out of memory.
MAX_BYTES = 1 << 30
# Others hold the lock for two renames; whoever holds it longer is not one of us.
LOCK_SECONDS = 60
# So many bytes are hashed in the time in which OpenSSL is loaded.
_OPENSSL_BYTES = 1 << 19
NAME_MAX = 255  # bytes of a file name on every common file system
_OLD = ".lpmangle-old."
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
    """What was read, and the state of the file then. `path` is the target if a symbolic link was named."""

    path: str
    data: bytes
    state: os.stat_result


class Output(NamedTuple):
    """New content for `path`, in pieces. `like` gives mode and owner to a file that does not exist yet.

    `links` are other paths that are to lead to the same file as `path` (hard links).
    """

    path: str
    pieces: Iterable[bytes | bytearray | memoryview]
    like: os.stat_result | None = None
    links: Sequence[str] = ()


class ChangedError(FileError):
    """The input was replaced while we worked on what it was before."""


def read(path: str) -> File:
    """Read a regular file. Raises FileError."""
    data, state = _read(path)
    return File(resolve(path), data, state)


def kind(path: str) -> str | None:
    """What `path` leads to: REGULAR, FOLDER, a FIFO, a socket, a device, or a stream; None if there is nothing.

    A stream is whatever the process has open, such as /dev/stdin, under a name that is not that file's own. Raises
    FileError where it cannot be told.
    """
    try:
        if _is_stream(path):
            return _STREAM
        return _kind_of(os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _file_error("cannot read", path, error) from None


def identity(path: str) -> tuple[int, int]:
    """What tells the file that `path` leads to from all others, whatever it is called there. Raises FileError."""
    try:
        state = os.stat(path)
    except (OSError, ValueError) as error:
        raise _file_error("cannot read", path, error) from None
    return state.st_dev, state.st_ino


def _kind_of(state: os.stat_result) -> str:
    return _KINDS.get(stat.S_IFMT(state.st_mode), "of an unknown kind")


def _is_stream(path: str) -> bool:
    """Whether symbolic links lead to /proc/PID/fd/N, which the kernel makes look like one more link (proc(5))."""
    for _ in range(_MOST_LINKS):
        if not os.path.islink(path):
            return False
        folder = os.path.realpath(os.path.dirname(path))
        if folder.startswith("/proc/") and folder.endswith("/fd"):
            return True
        path = os.path.join(folder, os.readlink(path))
    return False


def resolve(path: str) -> str:
    """Where `path` leads, through symbolic links; nothing need be there yet. Raises FileError, also for a stream."""
    try:
        if _is_stream(path):
            raise _not_regular(_STREAM, path)
        return os.path.realpath(path, strict=True)
    except FileNotFoundError:
        return os.path.realpath(path)
    except (OSError, ValueError) as error:  # without strict a link that cannot be read is taken for a file
        raise _file_error("cannot read", path, error) from None


def content(path: str) -> bytes:
    """The same without looking where the path leads, for reading a thousand files."""
    return _read(path)[0]


def _read(path: str) -> tuple[bytes, os.stat_result]:
    try:
        # O_NONBLOCK: opening a FIFO by mistake must not hang.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb", buffering=0) as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise _not_regular(_kind_of(state), path)
            if state.st_size > MAX_BYTES:
                raise FileError(f"is too large ({state.st_size} bytes)", path=path)
            return file.read(), state
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _file_error("cannot read", path, error) from None


def start_of(path: str) -> bytes:
    """The first 4096 bytes of what is at `path`; none if there is nothing, or nothing that can be read."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb", buffering=0) as file:
            return file.read(4096) or b""
    except OSError:  # what is wrong with the path shows when it is written
        return b""


def replace(
    outputs: list[Output], unchanged: File | None = None, before_last: Callable[[], None] = lambda: None
) -> None:
    """Bring all `outputs` into place, in order, or none.

    `unchanged` must still be the file that was read, and the last output's links lead to it, else ChangedError.
    `before_last` is called when only the last output is not yet in its place. Raises FileError, and what `before_last`
    raises; then every path is as it was and no temporary file is left. Other processes that write into the last
    output's folder with this function wait.
    """
    paths = [path for output in outputs for path in (*output.links, output.path)]
    temporaries = [temporary_for(path) for path in paths]
    try:
        waiting = iter(temporaries)
        for output in outputs:
            links = [next(waiting) for _ in output.links]
            _write(next(waiting), output, links)
        # An interrupt between the renames would leave a manifest without its payload.
        with _folder_locked(outputs[-1].path), _signals_held():
            if unchanged is not None:
                for path in (unchanged.path, *outputs[-1].links):
                    _check_unchanged(unchanged._replace(path=path))
            _rename(temporaries, paths, before_last)
            temporaries.clear()
    finally:
        for temporary in temporaries:
            with suppress(OSError):
                os.unlink(temporary)


def place_new(temporary: str, path: str) -> bool:
    """Give a finished file its name; False if there is something by that name by now. Raises FileError."""
    try:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # no hard links on this file system
            with _folder_locked(path):
                if os.path.lexists(path):
                    return False
                os.rename(temporary, path)
    except OSError as error:
        raise _file_error("cannot write", path, error) from None
    with suppress(OSError):  # it is in place; only when that reaches the disk is not known
        _sync_folder(path)
    return True


def fitting(path: str, payload: bytes) -> str:
    """`path`, or the file beside it that `replace` kept of it, if that and not `path` holds the SHA-256 of `payload`.

    As a manifest does that belongs to a payload. There is such a file only after a process was killed.
    """
    kept = _kept(path)
    if not os.path.exists(kept):
        return path
    digest = sha256(payload).encode()
    return kept if _holds(kept, digest) and not _holds(path, digest) else path


def _holds(path: str, word: bytes) -> bool:
    try:
        return word in content(path)
    except FileError:
        return False


def _write(temporary: str, output: Output, links: Sequence[str] = ()) -> None:
    like = output.like
    try:
        with suppress(FileNotFoundError):
            like = os.stat(output.path)
        if like is not None and not stat.S_ISREG(like.st_mode):
            raise _not_regular(_kind_of(like), output.path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o666 if like is None else 0o600), "wb", buffering=0) as file:
            for piece in output.pieces:
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
            if like is not None:
                with suppress(PermissionError):
                    os.fchown(file.fileno(), like.st_uid, like.st_gid)
                os.fchmod(file.fileno(), like.st_mode & 0o777)
            os.fsync(file.fileno())
        for link in links:
            os.link(temporary, link)
    except FileNotFoundError:
        raise FileError("there is no such folder", path=os.path.dirname(output.path)) from None
    except OSError as error:
        raise _file_error("cannot write", output.path, error) from None


def _rename(temporaries: list[str], paths: list[str], before_last: Callable[[], None]) -> None:
    """All but the last are synced before the last is renamed; after that there is no way back."""
    *companions, last = paths
    had_content: dict[str, bool] = {}
    path = last
    try:
        for temporary, path in zip(temporaries, companions, strict=False):
            had_content[path] = _keep(path, last)
            os.replace(temporary, path)
            # File systems do not swap what is done in one folder: what was kept is on disk with it.
            _sync_folder(path)
        path = last
        before_last()
        os.replace(temporaries[-1], path)
    except BaseException as error:
        for companion, had in had_content.items():
            with suppress(OSError, FileError):
                _put_back(companion) if had else os.unlink(companion)
        if isinstance(error, OSError):
            raise _file_error("cannot replace", path, error) from None
        raise
    for companion in companions:
        with suppress(OSError):  # it does no harm
            os.unlink(_kept(companion))
    with suppress(OSError):  # all is in place and in order; only when it reaches the disk is not known
        _sync_folder(last)


def _kept(path: str) -> str:
    """Where the old content of `path` is until all is in place: named so that a folder of manifests shows it."""
    folder, name = os.path.split(path)
    return os.path.join(folder, _OLD + os.fsdecode(os.fsencode(name)[len(_OLD) - NAME_MAX :]))


def _keep(path: str, payload: str) -> bool:
    """Give what `path` holds a second name, or make a copy; False if there is nothing."""
    kept = _kept(path)
    if os.path.lexists(kept):  # by a process that was killed
        with suppress(FileError):
            if fitting(path, content(payload)) == kept:
                return True
        os.unlink(kept)
    try:
        os.link(path, kept)
    except FileNotFoundError:
        return False
    except OSError:  # no hard links on this file system, or not to files of others
        temporary = temporary_for(path)
        try:
            _write(temporary, Output(path, (content(path),)))
            os.replace(temporary, kept)
        finally:
            with suppress(OSError):
                os.unlink(temporary)
    return True


def _put_back(path: str) -> None:
    kept = _kept(path)
    try:
        os.replace(kept, path)
    except OSError:  # others' files in a folder with the sticky bit; they are as they were
        if content(kept) != content(path):
            raise
    with suppress(FileNotFoundError):  # rename(2) leaves two names of one file as they are
        os.unlink(kept)


def _check_unchanged(file: File) -> None:
    try:
        now = os.stat(file.path)
    except OSError as error:
        raise _file_error("cannot read", file.path, error) from None
    then = file.state
    if (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns) != (
        then.st_dev, then.st_ino, then.st_size, then.st_mtime_ns,
    ):  # fmt: skip
        raise ChangedError("was changed by another process meanwhile", path=file.path, hint="run the command again")


def temporary_for(path: str) -> str:
    """A name that nothing has yet, in the folder of `path`."""
    return os.path.join(os.path.dirname(path), f".lpmangle-{os.urandom(8).hex()}.tmp")


def _sync_folder(path: str) -> None:
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot sync a folder
            raise
    finally:
        _close(folder)


def _close(folder: int) -> None:
    with suppress(OSError):  # nothing was written through it
        os.close(folder)


@contextmanager
def _folder_locked(path: str) -> Iterator[None]:
    try:
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _file_error("cannot write", path, error) from None
    try:
        _lock(folder, path)
        yield
    finally:
        _close(folder)


def _lock(folder: int, path: str) -> None:
    patience = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > patience:
                raise FileError("another process keeps the folder locked", path=path) from None
            time.sleep(0.01)
        except OSError:  # some network file systems cannot lock a folder; renames are atomic all the same
            return


@contextmanager
def _signals_held() -> Iterator[None]:
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _not_regular(kind: str, path: str) -> FileError:
    return FileError(f"is {kind}, not a regular file", path=path)


def _file_error(what: str, path: str, error: Exception) -> FileError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return FileError(f"{what}: {reason}", path=path)


def sha256(data: bytes | bytearray) -> str:
    """SHA-256 of a file's content, in hex."""
    digest: str = _sha256_for(len(data))(data).hexdigest()
    return digest


def _sha256_for(size: int) -> "Callable[[bytes | bytearray], Any]":
    """For so many bytes the quicker of OpenSSL's, which is slow to load, and Python's own (as its random.py does)."""
    if size < _OPENSSL_BYTES:
        for name in ("_sha2", "_sha256"):  # of Python 3.12 and newer, of 3.11
            with suppress(ImportError):
                found: Callable[[bytes | bytearray], Any] = __import__(name).sha256
                return found
    import hashlib

    return hashlib.sha256
