"""Replaces files as a whole: at every moment a path has its old content or its new one.

New content goes to a temporary file in the same folder, is synced, and renamed. Several outputs that belong together
(manifest, then payload) are all written before the first is renamed, and undone if a later one fails.
If the process is killed between two renames, the old payload's manifest is where `fitting` finds it.
"""

import errno
import fcntl
import os
import stat
import time

from lpmangle.errors import FileError
from lpmangle.system.files import File, content, file_error, kind_of, not_regular
from lpmangle.system.light import Callable, Iterable, Sequence, signal, suppress
from lpmangle.system.records import NamedTuple

# Others hold the lock for two renames; a process that holds it longer is not lpmangle.
LOCK_SECONDS = 60
NAME_MAX = 255  # bytes of a file name on every common file system
_OLD = ".lpmangle-old."


class Output(NamedTuple):
    """New content for `path`, in pieces. `like` gives mode and owner to a file that does not exist yet.

    `links` are other paths that will lead to the same file as `path` (hard links).
    """

    path: str
    pieces: Iterable[bytes | bytearray | memoryview]
    like: os.stat_result | None = None
    links: Sequence[str] = ()


class ChangedError(FileError):
    """The input was replaced while we worked on its old content."""


def replace(
    outputs: list[Output],
    unchanged: File | None = None,
    before_last: Callable[[], None] = lambda: None,
    fit: Callable[[bytes, bytes], int] = lambda last, other: 0,
) -> None:
    """Bring all `outputs` into place, in order, or none.

    `unchanged` must still be the file that was read, and the last output's links lead to it, else ChangedError.
    `before_last` is called when only the last output is not yet in its place. `fit` says how well what the last path
    holds (a payload) and what another holds (its manifest) fit together, for `fitting`. Raises FileError, and what
    `before_last` raises; then every path is as it was and no temporary file is left. Other processes that write into
    the last output's folder with this function wait.
    """
    paths = [path for output in outputs for path in (*output.links, output.path)]
    temporaries = [temporary_for(path) for path in paths]
    try:
        waiting = iter(temporaries)
        for output in outputs:
            links = [next(waiting) for _ in output.links]
            _write(next(waiting), output, links)
        # An interrupt between the renames would leave a manifest without its payload.
        with _FolderLocked(outputs[-1].path), _SignalsHeld():
            if unchanged is not None:
                for path in (unchanged.path, *outputs[-1].links):
                    _check_unchanged(unchanged._replace(path=path))
            _rename(temporaries, paths, before_last, fit)
            temporaries.clear()
    finally:
        for temporary in temporaries:
            with suppress(OSError):
                os.unlink(temporary)


def place_new(temporary: str, path: str) -> bool:
    """Give a finished file its name; False if there is a file of that name now. Raises FileError."""
    try:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # no hard links on this file system
            with _FolderLocked(path):
                if os.path.lexists(path):
                    return False
                os.rename(temporary, path)
    except OSError as error:
        raise file_error("cannot write", path, error) from None
    with suppress(OSError):  # it is in place; it is only unknown when that reaches the disk
        _sync_folder(path)
    return True


def fitting(path: str, fit: Callable[[bytes], int]) -> str:
    """`path`, or the file beside it that `replace` kept of it, if that one's content fits better, as `fit` says.

    There is such a file only after a process was killed.
    """
    kept = _kept(path)
    return kept if os.path.exists(kept) and _fit_of(kept, fit) > _fit_of(path, fit) else path


def _fit_of(path: str, fit: Callable[[bytes], int]) -> int:
    try:
        return fit(content(path))
    except FileError:
        return 0


def _write(temporary: str, output: Output, links: Sequence[str] = ()) -> None:
    like = output.like
    try:
        with suppress(FileNotFoundError):
            like = os.stat(output.path)
        if like is not None and not stat.S_ISREG(like.st_mode):
            raise not_regular(kind_of(like), output.path)
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
        raise file_error("cannot write", output.path, error) from None


def _rename(
    temporaries: list[str], paths: list[str], before_last: Callable[[], None], fit: Callable[[bytes, bytes], int]
) -> None:
    """All except the last are synced before the last is renamed; after that, nothing can be undone."""
    *companions, last = paths
    had_content: dict[str, bool] = {}
    path = last
    try:
        for temporary, path in zip(temporaries, companions, strict=False):
            had_content[path] = _keep(path, last, fit)
            os.replace(temporary, path)
            # File systems do not reorder changes in one folder: the kept file reaches the disk with it.
            _sync_folder(path)
        path = last
        before_last()
        os.replace(temporaries[-1], path)
    except BaseException as error:
        for companion, had in had_content.items():
            with suppress(OSError, FileError):
                _put_back(companion) if had else os.unlink(companion)
        if isinstance(error, OSError):
            raise file_error("cannot replace", path, error) from None
        raise
    for companion in companions:
        with suppress(OSError):  # it does no harm
            os.unlink(_kept(companion))
    with suppress(OSError):  # everything is in place; it is only unknown when that reaches the disk
        _sync_folder(last)


def _kept(path: str) -> str:
    """Where the old content of `path` is until everything is in place; a search in the folder finds it by name."""
    folder, name = os.path.split(path)
    return os.path.join(folder, _OLD + os.fsdecode(os.fsencode(name)[len(_OLD) - NAME_MAX :]))


def _keep(path: str, last: str, fit: Callable[[bytes, bytes], int]) -> bool:
    """Give the file at `path` a second name, or copy it; False if there is none."""
    kept = _kept(path)
    if os.path.lexists(kept):  # by a process that was killed
        with suppress(FileError):
            newest = content(last)
            if fitting(path, lambda other: fit(newest, other)) == kept:
                return True
        os.unlink(kept)
    try:
        os.link(path, kept)
    except FileNotFoundError:
        return False
    except OSError:  # no hard links on this file system, or not to other users' files
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
    except OSError:  # other users' files in a folder with the sticky bit; they have not changed
        if content(kept) != content(path):
            raise
    with suppress(FileNotFoundError):  # rename(2) leaves two names of one file as they are
        os.unlink(kept)


def _check_unchanged(file: File) -> None:
    try:
        now = os.stat(file.path)
    except OSError as error:
        raise file_error("cannot read", file.path, error) from None
    then = file.state
    if (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns) != (
        then.st_dev, then.st_ino, then.st_size, then.st_mtime_ns,
    ):  # fmt: skip
        raise ChangedError("was changed by another process meanwhile", path=file.path, hint="run the command again")


def temporary_for(path: str) -> str:
    """An unused name in the folder of `path`."""
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


class _FolderLocked:
    """Other processes that write into the folder of `path` wait."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        try:
            self._folder = os.open(os.path.dirname(self._path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise file_error("cannot write", self._path, error) from None
        try:
            _lock(self._folder, self._path)
        except BaseException:
            _close(self._folder)
            raise

    def __exit__(self, *error: object) -> None:
        _close(self._folder)


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
        except OSError:  # some network file systems cannot lock a folder; renames are still atomic
            return


class _SignalsHeld:
    """Signals that ask us to stop come after the block."""

    def __enter__(self) -> None:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})

    def __exit__(self, *error: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)
