"""What bash, zsh and fish do with a line when TAB is typed, each on its own terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# Keys. On ^T the shell writes the line as it stands to the file LINE, ^U takes the line away.
TAB, WRITE, CLEAR = "\t", "\x14", "\x15"
PROMPT = "ready> "
# Settings file and command line. SHARE is where the completions are installed.
SHELLS = {
    "bash": (
        ".bashrc",
        f"PS1='{PROMPT}'\n"
        "source /usr/share/bash-completion/bash_completion\n"
        """bind -x '"\\C-t": printf %s "$READLINE_LINE" >LINE.new; mv LINE.new LINE'\n""",
        ("bash", "--noprofile", "-i"),
    ),
    "zsh": (
        ".zshrc",
        f"PS1='{PROMPT}'\n"
        'fpath=("$SHARE/zsh/site-functions" $fpath)\n'
        "autoload -U compinit; compinit -D\n"
        'write() { print -rn -- "$BUFFER" >LINE.new; mv LINE.new LINE }\n'
        "zle -N write; bindkey '^T' write\n",
        ("zsh", "-d", "-i"),
    ),
    "fish": (
        ".config/fish/config.fish",
        f"function fish_prompt; echo -n '{PROMPT}'; end\nbind \\ct 'commandline >LINE.new; mv LINE.new LINE'\n",
        ("fish", "-i"),
    ),
}


def completed(
    shell: str, lines: Sequence[str], path: str, folder: Path, share: Path = Path("/nowhere"), setting: str = ""
) -> list[str]:
    """What becomes of each line that is typed and then a TAB, in `folder`, which is made the home folder too.

    Completions are found below `share`; `setting` is a line more in the start-up file.
    Raises TimeoutError with what was on the terminal if the shell does not answer.
    """
    name, settings, command = SHELLS[shell]
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"{settings}{setting}\n")
    environment = {"HOME": str(folder), "LC_ALL": "C.UTF-8", "TERM": "dumb", "PATH": path, "SHARE": str(share)}
    environment["XDG_DATA_DIRS"] = f"{share}:/usr/share"  # where bash-completion and fish look
    terminal, its_end = pty.openpty()
    with subprocess.Popen(
        ["setsid", "--ctty", *command], cwd=folder, env=environment, stdin=its_end, stdout=its_end, stderr=its_end
    ) as process:
        try:
            _wait(terminal, lambda shown: PROMPT in shown)
            return [_answer(terminal, line, folder / "LINE") for line in lines]
        finally:
            process.kill()
            os.close(its_end)
            os.close(terminal)


def _answer(terminal: int, line: str, written: Path) -> str:
    os.write(terminal, f"{CLEAR}{line}{TAB}{WRITE}".encode())
    _wait(terminal, lambda shown: written.exists())
    answer = written.read_text()
    written.unlink()
    return answer.removesuffix("\n")


def _wait(terminal: int, ready: Callable[[str], bool], seconds: float = 60) -> None:
    """Read the terminal until `ready`, which is given what was shown since."""
    end = time.monotonic() + seconds
    shown = b""
    while not ready(shown.decode(errors="replace")):
        if time.monotonic() > end:
            raise TimeoutError(f"the shell does not answer: {shown!r}")
        if select.select([terminal], [], [], 0.02)[0]:
            shown += os.read(terminal, 4096)
