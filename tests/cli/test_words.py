"""The words of a command line: a usage error comes before any work, for all words in any order."""

import io
import os
import pickle
import random
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from commands import ROOT

from lpmangle.cli import run
from lpmangle.cli.commands import COMMANDS, HELP

EXAMPLE = ROOT / "examples" / "fbab204.livepatch"
NAMES = (*COMMANDS, HELP)
OPTIONS = [
    *(["--json"], ["-v"], ["-q"], ["--dry-run"], ["--embed"], ["--if-changed"], ["--fail-fast"], ["--force"], ["--"]),
    *(["--suffix", "name"], ["--suffix=text:x"], ["-j", "2"], ["--keep", "f"], ["-o", "out"], ["-oout"]),
]


class Said(NamedTuple):
    """The outcome of a command line: exit code, stderr, and whether anything in the folder has changed."""

    code: int
    stderr: str
    touched: bool


def say_each(
    lines: Sequence[Sequence[str]], folder: Path, fill: Callable[[Path], object] = str, stdin: str = os.devnull
) -> list[Said]:
    """Run command lines one after the other in a fork of this process; `fill` repairs what one has changed."""
    with tempfile.TemporaryFile() as answers:
        pid = os.fork()
        if pid == 0:
            try:
                os.chdir(folder)
                os.dup2(os.open(stdin, os.O_RDWR), 0)
                os.dup2(os.open(os.devnull, os.O_RDWR), 1)
                with open(0) as sys.stdin, open(1, "w") as sys.stdout:
                    pickle.dump([_say(line, folder, fill) for line in lines], answers)
                answers.flush()
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        answers.seek(0)
        said: list[Said] = pickle.load(answers)
        return said


def _say(line: Sequence[str], folder: Path, fill: Callable[[Path], object]) -> Said:
    before = state(folder)
    sys.stderr = io.StringIO()
    code = run(line)
    touched = state(folder) != before
    if touched:
        fill(folder)
    return Said(code, sys.stderr.getvalue(), touched)


def say(line: Sequence[str], folder: Path) -> Said:
    return say_each([line], folder)[0]


def state(folder: Path) -> dict[str, object]:
    """All that a run could change below a folder."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path)] = (status.st_ino, status.st_mode, status.st_mtime_ns, content)
    return found


def fill(folder: Path) -> Path:
    """Two payloads, and files that are not payloads."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in ("p.livepatch", "q.livepatch"):
        shutil.copy(EXAMPLE, folder / name)
    (folder / "text").write_text("no elf\n")
    (folder / "list").write_text("q.livepatch\np.livepatch\n")
    (folder / "out").mkdir()
    os.mkfifo(folder / "fifo")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path)


@pytest.mark.parametrize("there", [False, True], ids=["no-file", "file"])
@pytest.mark.parametrize("name", NAMES)
def test_a_command_stands_first(folder: Path, name: str, there: bool) -> None:
    """Behind an option or a payload it is refused, whether there is a file of that name or not."""
    if there:
        shutil.copy(EXAMPLE, folder / name)
    lines = [
        line
        for option in OPTIONS
        for line in (
            [*option, name, "p.livepatch"],
            [*option, "p.livepatch", name],
            ["p.livepatch", *option, name],
            ["mangle", *option, name, "p.livepatch"],
        )
    ]
    for line, said in zip(lines, say_each(lines, folder), strict=True):
        assert (said.code, said.touched) == (2, False), line
        assert said.stderr.startswith(f"lpmangle: {name}: is "), line
        assert said.stderr.endswith(f"for a file of that name write ./{name}\n"), line
    if there:
        assert say(["-q", f"./{name}"], folder) == (0, "", True)
        assert (folder / f"{name}.manifest.json").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_options_of_a_command_that_does_not_stand_first(folder: Path, name: str) -> None:
    said = say(["--json", name, "--no-such-option", "p.livepatch"], folder)
    assert (said.code, said.touched) == (2, False)
    assert f"No such option '--no-such-option'. If you mean the command '{name}', put it first." in said.stderr


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"mangle"}))
def test_a_command_that_stands_first_mangles_nothing(folder: Path, name: str) -> None:
    lines = [line for option in OPTIONS for line in ([name, *option, "p.livepatch"], [name, "p.livepatch", *option])]
    assert not any(said.touched for said in say_each(lines, folder))


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("verfy", "did you mean 'verify'? A command comes first: lpmangle verify ..."),
        ("retore", "did you mean 'restore'?"),
        ("Query", "did you mean 'query'?"),
        ("mangel", "did you mean 'mangle'?"),
        ("display", "lpmangle --help lists the commands"),
        ("status", "lpmangle --help lists the commands"),
    ],
)
def test_what_is_no_file_and_no_command(folder: Path, word: str, hint: str) -> None:
    """It does not count as the first of several payloads, so that the second would be mangled."""
    lines = [
        *([word, "p.livepatch"], ["p.livepatch", word], ["--json", word, "p.livepatch"], ["-j2", "p.livepatch", word]),
        *([word, "-m", "x", "p.livepatch"], [word, "--original", "p.livepatch", "q.livepatch"]),
    ]
    for said in say_each(lines, folder):
        assert (said.code, said.touched) == (2, False)
        assert f"lpmangle: {word}: is neither a file nor a command\n  hint: {hint}" in said.stderr
    shutil.copy(EXAMPLE, folder / word)
    assert say(["-q", word, "p.livepatch"], folder) == (0, "", True)


@pytest.mark.parametrize("command", [[], ["mangle"], ["check"], ["check", "--loaded"], ["verify"], ["restore"]])
def test_a_payload_that_does_not_exist(folder: Path, command: list[str]) -> None:
    os.symlink("nowhere", folder / "dangling.livepatch")
    several = command[:1] in ([], ["mangle"], ["check"])
    only_a_file = ("missing",) if command[:1] not in ([], ["mangle"]) else ()  # else a misspelt command?
    for word in (*only_a_file, "missing.livepatch", "./verify", "no/such/folder/x", "text/x", "dangling.livepatch"):
        lines = [[*command, word]]
        lines += [[*command, "p.livepatch", word], [*command, word, "p.livepatch"]] if several else []
        for said in say_each(lines, folder):
            assert said == (2, f"lpmangle: {word}: there is no such file\n", False)


def test_a_list_that_names_what_does_not_exist(folder: Path) -> None:
    (folder / "missing").write_text("p.livepatch\nmissing.livepatch\n")
    (folder / "odd").write_text("p.livepatch\nfifo\n")
    (folder / "command").write_text("p.livepatch\nverify\n")
    for line, message in (
        (["@missing"], "missing.livepatch: there is no such file\n"),
        (["q.livepatch", "@missing"], "missing.livepatch: there is no such file\n"),
        (["@odd"], "fifo: is a FIFO, not a regular file\n"),
        (["@no-list", "p.livepatch"], "no-list: there is no such file\n"),
        (["@command"], "verify: there is no such file\n"),
    ):
        said = say(line, folder)
        assert (said.code, said.touched) == (2, False)
        assert said.stderr.startswith(f"lpmangle: {message}")
    shutil.copy(EXAMPLE, folder / "verify")  # a list contains paths, not words
    assert say(["-q", "@command"], folder) == (0, "", True)


def test_a_suffix_or_template_that_is_wrong_for_any_payload(folder: Path) -> None:
    for options in (
        *(["--suffix", "bad"], ["--suffix", "buildid:6"], ["--suffix", "text:"], ["--suffix", "text:a#b"]),
        *(["--template", "{symbol}"], ["--template", "{symbol}_" + 100 * "x" + "{suffix}"]),
        ["--suffix", "text:" + "x" * 100],
    ):
        lines = [[*options, "p.livepatch", "text"], ["build", *options, "--", "touch", "made"]]
        said = say_each(lines, folder)
        assert said[0] == said[1] == (2, said[0].stderr, False)
        assert said[0].stderr.startswith("lpmangle: ")
    # An option that does not fit this payload may fit another one.
    shutil.copy(EXAMPLE, folder / "a b.livepatch")
    for options, payload in ((["--suffix", "buildid:41"], "p.livepatch"), (["--suffix", "name"], "a b.livepatch")):
        assert say([*options, payload], folder).code == 3


@pytest.fixture
def special(folder: Path) -> Iterator[dict[str, str]]:
    """Files that are not regular, and the word for each."""
    (folder / "stream").symlink_to("/dev/stdin")
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(folder)  # a socket's path is short
        one.bind("socket")
        os.chdir(here)
        yield {
            "-": "stdin or stdout",
            "fifo": "a FIFO",
            "socket": "a socket",
            "/dev/null": "a device",
            "/dev/stdin": "a stream",
            "/dev/fd/0": "a stream",
            "/proc/self/fd/0": "a stream",
            "stream": "a stream",
        }


PAYLOADS = [
    [],
    ["-o", "new"],
    ["mangle"],
    ["verify"],
    ["restore"],
    ["check"],
    ["check", "--loaded"],
    ["restore", "-o", "x"],
]
OUTPUTS = [["-o"], ["--manifest"], ["-o", "new", "--depfile"], ["restore", "-o"], ["--embed", "-qo"]]
OUTPUTS += [["check", "--junit"], ["check", "--html"], ["compare", "--html"]]
CATALOGS = [["catalog", "add"], ["catalog", "list"], ["catalog", "find"], ["catalog", "remove"]]


@pytest.mark.parametrize("words", [*PAYLOADS, *OUTPUTS, *CATALOGS], ids=" ".join)
def test_special_files_are_refused(folder: Path, special: dict[str, str], words: list[str]) -> None:
    """As payload, output, manifest, depfile or catalog; also if stdin and stdout are regular files."""
    behind = ["p.livepatch"] if words in OUTPUTS + CATALOGS[:1] else ["x"] if words in CATALOGS[2:] else []
    lines = [[*words, word, *behind] for word in special]
    for stdin in (os.devnull, "p.livepatch"):
        for (word, kind), said in zip(special.items(), say_each(lines, folder, stdin=stdin), strict=True):
            assert (said.code, said.touched) == (2, False)
            assert said.stderr.startswith(f"lpmangle: {word}: is {kind}, not a")


def test_a_log_is_a_stream(folder: Path) -> None:
    """retrace reads stdin, FIFOs and devices; a list of payloads may come from anywhere."""
    lpmangle = f"{sys.executable} -m lpmangle"
    for words in ("retrace -m . - <text", "retrace -m . /dev/stdin <text", "retrace -m . <(cat text)"):
        line = f"{lpmangle} -q p.livepatch; {lpmangle} {words}"
        done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "no elf\n"), done.stderr
    line = f"{lpmangle} -q @<(echo q.livepatch)"
    done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (folder / "q.livepatch.manifest.json").exists()


def test_a_file_called_like_stdin(folder: Path) -> None:
    shutil.copy(EXAMPLE, folder / "-")
    assert say(["-q", "./-"], folder) == (0, "", True)
    assert say(["verify", "./-"], folder) == (0, "", False)


WORDS = [
    *("p.livepatch", "q.livepatch", "./p.livepatch", "missing.livepatch", "text", "out", "out/", "no/x", "fifo", "-"),
    *(*NAMES, "verfy", "show", "add", "list", "-h", "--version", "--", "@list", "@missing", "@-", ""),
    *("-m", "-o", "--manifest", "--depfile", "--suffix", "--template", "-j", "--against", "--xen", "--keep"),
    *("name", "buildid", "text:a#b", "buildid:41", "x", "0", "2", "--json", "-q", "-v", "--dry-run", "--embed"),
    *("--suffix=name", "--suffix=bad", "--scope=new", "-oout", "-oout/", "-ono/", "--fail-fast", "--no-such-option"),
    *("--loaded", "--check", "--original", "--result", "--junit", "--html"),
]


def test_a_usage_error_touches_nothing(folder: Path) -> None:
    """For random command lines; half of them begin with a command."""
    chance = random.Random(seed := int(os.environ.get("LPMANGLE_SEED", "9")))
    print("seed", seed)
    lines = [[chance.choice(WORDS) for _ in range(chance.randrange(7))] for _ in range(600)]
    lines += [[chance.choice(list(COMMANDS)), *line] for line in lines]
    answers = say_each(lines, folder, fill)
    for line, said in zip(lines, answers, strict=True):
        assert said.code != 2 or not said.touched, (line, said)
        assert said.code in (0, 1, 2, 3, 4, 126, 127), (line, said)
    assert {said.touched for said in answers} == {True, False}
    assert {0, 2, 3, 4} <= {said.code for said in answers}
