"""All errors that lpmangle raises on purpose, named by the phase in which they arise; names and numbers in messages.

Each carries what is wrong (`message`), what to do about it (`hint`, may be empty), the file it is about (`path`, filled
in by `about`) and the exit code of the command line. Only `lpmangle.cli` turns them into messages.
"""

EXIT_NO = 1  # the answer is no: not found, verify failed, Xen would refuse
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
    """The bytes are not a relocatable ELF file, or a damaged one."""


class PayloadError(LpmangleError):
    """A sound ELF file, but not one that Xen would load as a livepatch payload."""


class NamingError(LpmangleError):
    """A suffix or template that cannot make valid names."""

    exit_code = EXIT_USAGE


class PlanError(LpmangleError):
    """The renaming asked for would clash, or was done before in another way."""


class MangledError(PlanError):
    """The payload was mangled before, in another way than is asked for now. It can be done from its original."""


class StrictError(LpmangleError):
    """There are warnings, and --strict allows none."""


class ManifestError(LpmangleError):
    """No manifest, a damaged one, or one that belongs to another payload."""


class NoManifestError(ManifestError):
    """The manifest of a payload was not found."""


class WordError(LpmangleError):
    """A word on the command line that makes no sense there. Nothing has been done yet."""

    exit_code = EXIT_USAGE


class NoSourceError(LpmangleError):
    """Nobody said where manifests are."""

    exit_code = EXIT_USAGE


class CatalogError(LpmangleError):
    """A file that is not a catalog, a damaged one, or one that cannot be read or written now."""


class KeyFileError(LpmangleError):
    """A file that should be a public key, but is not."""


class MissingPackageError(LpmangleError):
    """A package that is needed but not installed, because it is optional."""

    exit_code = EXIT_USAGE


class ProofError(LpmangleError):
    """Output and input differ in more than names. Nothing is written: this is a bug in lpmangle."""

    def __init__(self, message: str) -> None:
        super().__init__(
            f"proof failed, nothing was written: {message}",
            hint="this is a bug in lpmangle; please report it with the payload",
        )


class FileError(LpmangleError):
    """A file or server cannot be read or written."""

    exit_code = EXIT_FILES


class ResultError(LpmangleError):
    """It is not known which payload a command will build."""

    exit_code = EXIT_USAGE


class BuildError(LpmangleError):
    """A build left no payload where it was expected."""


class CheckError(LpmangleError):
    """Xen would refuse the payload, so it is not written."""

    exit_code = EXIT_NO


class StepError(LpmangleError):
    """A command that should change a payload failed. We exit with its exit code."""

    def __init__(self, message: str, exit_code: int = EXIT_REFUSED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StoppedError(LpmangleError):
    """A user or a build system asked us to stop, with a signal."""

    def __init__(self, signal: int) -> None:
        super().__init__("interrupted")
        self.signal = signal
        self.exit_code = 128 + signal


class CommandError(LpmangleError):
    """A command that cannot be started. The exit code is the one that a shell gives."""

    def __init__(self, command: str, error: Exception) -> None:
        missing = isinstance(error, FileNotFoundError)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        super().__init__(f"cannot be started: {reason}", path=command)
        self.exit_code = 127 if missing else 126


def counted(number: int, one: str, several: str = "") -> str:
    """A number and what it counts: `1 symbol`, `2 symbols`. `several` is for words whose plural is not just an s."""
    return f"{number} {one if number == 1 else several or one + 's'}"


def listed(first: list[str], count: int) -> str:
    """The first of `count` names in one text, and how many there are besides: `a, b and 3 more`."""
    return ", ".join(first) + (f" and {count - len(first)} more" if count > len(first) else "")


class about:  # not a generator: contextlib is slow to load
    """Name `path` in every error that leaves the block without a path of its own."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, LpmangleError):
            error.path = error.path or self._path
