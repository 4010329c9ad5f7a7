"""lpmangle build --before and --after: commands that change the payload, all or nothing."""

import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from builds import ROOT, environment, names, run

OLD, NEW = (ROOT / "examples" / f"{name}.livepatch" for name in ("617712b", "fbab204"))
SIGN = "sh -c 'echo SIGNATURE >>\"$1\"' sign"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where p.livepatch was linked, with debug information."""
    (tmp_path / "info").write_text("debug information\n")
    run(["objcopy", "--add-section", ".debug_info=info", str(NEW), "p.livepatch"], tmp_path)
    (tmp_path / "info").unlink()
    return tmp_path


def build(folder: Path, *words: str, code: int = 0, result: str = "p.livepatch") -> "subprocess.CompletedProcess[str]":
    return run(["lpmangle", "build", "--result", result, *words, "--", "true"], folder, code=code)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def sections(payload: Path) -> str:
    return subprocess.run(["readelf", "-SW", payload], capture_output=True, text=True, check=True).stdout


def test_strip_before(folder: Path) -> None:
    """The result counts as the original then."""
    stripped = Path(shutil.copy(folder / "p.livepatch", folder / "stripped"))
    subprocess.run(["strip", "-g", stripped], check=True)
    assert ".debug_info" in sections(folder / "p.livepatch")
    done = build(folder, "--before", "strip -g")
    assert done.stdout.startswith("p.livepatch: 5 symbols renamed")
    assert ".debug_info" not in sections(folder / "p.livepatch")
    run(["lpmangle", "verify", "p.livepatch", "--original", "stripped"], folder)
    run(["lpmangle", "restore", "p.livepatch"], folder)
    assert (folder / "p.livepatch").read_bytes() == stripped.read_bytes()


@pytest.mark.parametrize("embed", [(), ("--embed",)], ids=["", "embed"])
def test_sign_after(folder: Path, embed: tuple[str, ...]) -> None:
    """The manifest is that of what was signed."""
    plain = folder / "plain" / "p.livepatch"
    plain.parent.mkdir()
    shutil.copy(folder / "p.livepatch", plain)
    run(["lpmangle", *embed, "plain/p.livepatch"], folder)
    build(folder, *embed, "--after", SIGN, "--catalog", "c.db")
    assert (folder / "p.livepatch").read_bytes() == plain.read_bytes() + b"SIGNATURE\n"
    manifest = folder / "p.livepatch.manifest.json"
    assert manifest.read_bytes() == Path(f"{plain}.manifest.json").read_bytes()
    for source in (manifest.name, "c.db"):
        assert (
            "10 bytes that belong to no section"
            in run(["lpmangle", "verify", "p.livepatch", "-m", source], folder).stdout
        )


def test_order_and_words(folder: Path) -> None:
    """Each gets the words unchanged, without a shell, in our folder; the copy has the payload's name."""
    script = folder / "step"
    script.write_text('#!/bin/sh\nfor last; do :; done\necho "$PWD ${last##*/} $#: $1" >>log; nm -j "$last" >>"$1"\n')
    script.chmod(0o755)
    build(folder, "--before", "./step 'a  b' *", "--before", "./step c", "--after", "./step d $HOME")
    assert (folder / "log").read_text().splitlines() == [
        f"{folder} p.livepatch 3: a  b",
        f"{folder} p.livepatch 2: c",
        f"{folder} p.livepatch 3: d",
    ]
    assert "x86_emulate.c#_get_fpu\n" in (folder / "a  b").read_text()
    assert (folder / "d").read_text().split() == names(folder / "p.livepatch")


def test_what_else_is_written_beside_the_copy_is_removed(folder: Path) -> None:
    temporary = folder / "tmp"
    temporary.mkdir()
    command = ["lpmangle", "build", "--result=p.livepatch", "--after", "sh -c 'touch \"$1.sig\"' x", "--", "true"]
    run(command, folder, env=environment(TMPDIR=str(temporary)))
    assert set(content(folder)) == {"p.livepatch", "p.livepatch.manifest.json"}
    assert list(temporary.iterdir()) == []


FAILURES = {
    "sh -c 'echo x >>\"$1\"; exit 7' x": (7, "failed (exit code 7)"),
    "false": (1, "failed (exit code 1)"),
    "sh -c 'kill -SEGV $$' x": (128 + signal.SIGSEGV, "failed (signal 11)"),
    "rm": (3, "left no payload"),
    'sh -c \'rm "$1"; mkdir "$1"\' x': (3, "left no payload"),
    "truncate -s 100": (3, ""),  # the result is not a payload
}


@pytest.mark.parametrize(("command", "expected"), FAILURES.items())
@pytest.mark.parametrize("option", ["--before", "--after"])
def test_a_command_that_fails(folder: Path, option: str, command: str, expected: tuple[int, str]) -> None:
    """Its exit code is ours; the payload is as the linker left it, without a manifest, whatever was done before."""
    if option == "--after" and command.startswith("truncate"):
        option = "--before"
    before = content(folder)
    code, said = expected
    done = build(folder, "--before", "strip -g", option, command, "--catalog", "c.db", code=code)
    assert done.stderr.startswith("lpmangle: ")
    assert said in done.stderr
    assert done.stdout == ""
    assert content(folder) == before


def test_a_check_of_what_was_signed(folder: Path) -> None:
    before = content(folder)
    done = build(folder, "--after", "truncate -s +2M", "--check", code=1)
    assert "check: refused" in done.stderr
    assert content(folder) == before


@pytest.mark.parametrize("embed", [(), ("--embed",)], ids=["", "embed"])
def test_what_was_mangled_before_is_not_signed_twice(folder: Path, embed: tuple[str, ...]) -> None:
    """A tool that had nothing to do; the existing manifest is the right one."""
    build(folder, *embed, "--before", "strip -g", "--after", SIGN)
    before = content(folder)
    done = build(folder, *embed, "--before", "false", "--after", SIGN)
    assert done.stdout == "p.livepatch: already mangled\n"
    assert done.stderr == ""
    assert content(folder) == before


def test_several_payloads_are_each_on_their_own(folder: Path) -> None:
    shutil.copy(OLD, folder / "q.livepatch")
    before = content(folder)
    only_q = "sh -c 'case $1 in *p.livepatch) exit 9; esac' x"
    done = build(folder, "--after", only_q, result="*.livepatch", code=9)
    assert "lpmangle: p.livepatch: --after " in done.stderr
    assert done.stdout.startswith("q.livepatch: 4 symbols renamed")
    assert content(folder)["p.livepatch"] == before["p.livepatch"]
    assert set(content(folder)) == {"p.livepatch", "q.livepatch", "q.livepatch.manifest.json"}


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("no-such-tool -x", 127, "no-such-tool: cannot be started: No such file"),
        ("./text", 127, "./text: cannot be started"),
        ("", 2, "--before: no command"),
        ("sign 'x", 2, "--before: No closing quotation"),
    ],
)
def test_what_is_wrong_is_said_before_the_build(folder: Path, command: str, code: int, said: str) -> None:
    (folder / "text").write_text("no program\n")
    command_line = ["lpmangle", "build", "--result=p.livepatch", "--before", command, "--", "touch", "built"]
    assert said in run(command_line, folder, code=code).stderr
    assert not (folder / "built").exists()


@pytest.mark.parametrize("option", ["--before", "--after"])
def test_an_interrupt(folder: Path, option: str) -> None:
    """Nothing is mangled, even if the command itself continues; the others are not begun."""
    shutil.copy(OLD, folder / "q.livepatch")
    before = content(folder)
    wait = "sh -c 'trap \"echo going on; exit 0\" TERM; echo ready; while :; do sleep 0.05; done' x"
    process = subprocess.Popen(
        ["lpmangle", "build", "--result=*.livepatch", option, wait, "--", "true"],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert stdout == "going on\n"
    assert "lpmangle: p.livepatch: interrupted by SIGTERM, nothing was mangled\n" in stderr
    assert process.returncode == -signal.SIGTERM
    assert content(folder) == before
