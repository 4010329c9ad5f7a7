"""All errors that lpmangle raises on purpose, named by the phase in which they arise; and counted nouns for messages.

Each carries what is wrong (`message`), what to do about it (`hint`, may be empty), the file it is about (`path`, filled
in by `about`) and the exit code of the command line. One place, `lpmangle.cli`, turns them into words.
"""

from collections.abc import Iterator
from contextlib import contextmanager

EXIT_NO = 1  # the answer is no: query found nothing, verify failed
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_FILES = 4


class LpmangleError(Exception):
    """Base of all; never raised itself."""

    exit_code = EXIT_REFUSED

    def __init__(self, message: str, *, hint: str = "", path: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.path = path


class ElfError(LpmangleError):
    """The bytes are no relocatable ELF file, or a damaged one."""


class PayloadError(LpmangleError):
    """A sound ELF file, but nothing that Xen would load as a livepatch payload."""


class NamingError(LpmangleError):
    """A suffix or template that cannot make good names."""

    exit_code = EXIT_USAGE


class PlanError(LpmangleError):
    """The renaming asked for would clash, or was done before in another way."""


class MangledError(PlanError):
    """The payload was mangled before, in another way than asked for now. With its original that can be done."""


class StrictError(LpmangleError):
    """There are warnings, and none was to be (--strict)."""


class ManifestError(LpmangleError):
    """No manifest, a damaged one, or one that belongs to another payload."""


class NoManifestError(ManifestError):
    """A payload whose manifest is nowhere to be found."""


class WordError(LpmangleError):
    """A word on the command line that makes no sense where it stands. Nothing has been done yet."""

    exit_code = EXIT_USAGE


class NoSourceError(LpmangleError):
    """Nobody said where manifests are."""

    exit_code = EXIT_USAGE


class CatalogError(LpmangleError):
    """A file that is no catalog, a damaged one, or one that cannot be read or written now."""


class KeyFileError(LpmangleError):
    """A file that was to be a public key."""


class MissingPackageError(LpmangleError):
    """A package that is installed only on demand."""

    exit_code = EXIT_USAGE


class ProofError(LpmangleError):
    """Output and input differ in more than names. Nothing is written: this is a bug in lpmangle."""

    def __init__(self, message: str) -> None:
        super().__init__(
            f"proof failed, nothing was written: {message}",
            hint="this is a bug in lpmangle; please report it with the payload",
        )


class FileError(LpmangleError):
    """The file system said no."""

    exit_code = EXIT_FILES


class ResultError(LpmangleError):
    """Nobody has said which payload a command is to make."""

    exit_code = EXIT_USAGE


class BuildError(LpmangleError):
    """A build that left no payload where it was to be."""


class CheckError(LpmangleError):
    """Xen would refuse the payload, and so it is not written."""

    exit_code = EXIT_NO


class StepError(LpmangleError):
    """A command that was to change a payload failed. Its exit code is ours."""

    def __init__(self, message: str, exit_code: int = EXIT_REFUSED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StoppedError(LpmangleError):
    """A user or a build system has asked us to stop, with a signal."""

    def __init__(self, signal: int) -> None:
        super().__init__("interrupted")
        self.signal = signal
        self.exit_code = 128 + signal


class CommandError(LpmangleError):
    """A command that cannot be started. Its exit code is that of a shell."""

    def __init__(self, command: str, error: Exception) -> None:
        missing = isinstance(error, FileNotFoundError)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        super().__init__(f"cannot be started: {reason}", path=command)
        self.exit_code = 127 if missing else 126


def counted(number: int, one: str, several: str = "") -> str:
    """A number and what it counts: `1 symbol`, `2 symbols`. `several` is for what does not just get an s."""
    return f"{number} {one if number == 1 else several or one + 's'}"


@contextmanager
def about(path: str) -> Iterator[None]:
    """Name `path` in every error that leaves the block without a path of its own."""
    try:
        yield
    except LpmangleError as error:
        error.path = error.path or path
        raise
