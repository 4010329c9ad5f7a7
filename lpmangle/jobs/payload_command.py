"""A user's command that changes a payload, such as strip or a tool that signs.

It is run on a copy, so that the payload stays as it is if the command fails, is killed, or a later step fails.
"""

import os
import shlex
import shutil
import tempfile
from typing import NamedTuple

from lpmangle.errors import CommandError, StepError, StoppedError
from lpmangle.system import files, process


class PayloadCommand(NamedTuple):
    """`words` are run, with the payload's path as the last word; `option` is the option that asked for it.

    Its standard output goes to our descriptor `stdout`.
    """

    option: str
    words: list[str]
    stdout: int

    @classmethod
    def read(cls, option: str, text: str, stdout: int = process.STDOUT) -> "PayloadCommand":
        """`text` is split into words as a shell would. Raises ValueError, and CommandError if there is no such command.

        They are not run by a shell: `$` and `*` are not expanded.
        """
        words = shlex.split(text)
        if not words:
            raise ValueError("no command")
        if shutil.which(words[0]) is None:
            raise CommandError(words[0], FileNotFoundError(2, os.strerror(2)))
        return cls(option, words, stdout)

    def __str__(self) -> str:
        return f"{self.option} {shlex.join(self.words)!r}"

    def changed(self, data: bytes | bytearray, path: str, mode: int) -> bytes:
        """The payload `data` as the command has changed it. Its copy has the file name of `path`, and `mode`.

        Other files that it writes beside the copy are removed. Raises StepError if it fails, StoppedError if a user
        stops us meanwhile, CommandError, FileError.
        """
        with tempfile.TemporaryDirectory(prefix="lpmangle-") as folder:
            copy = os.path.join(folder, os.path.basename(path))
            with open(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(data)
            end = process.run([*self.words, copy], stdout=self.stdout)
            if end.stopped_by:
                raise StoppedError(end.stopped_by)
            if end.code:
                how = f"exit code {end.code}" if end.code > 0 else f"signal {-end.code}"
                raise StepError(f"{self} failed ({how})", end.code if end.code > 0 else 128 - end.code)
            if not os.path.isfile(copy):
                raise StepError(f"{self} left no payload")
            return files.content(copy)
