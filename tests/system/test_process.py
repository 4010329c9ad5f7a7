"""A command that lpmangle runs: its terminal, descriptors, signals and exit code, as if it were called directly."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builds import STANDIN, environment, is_mangled, make_build, options, run, script

BUILD = ["lpmangle", "build", "--"]
TOOL = ["livepatch-build"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With all that a build needs."""
    return make_build(tmp_path)


def start(folder: Path, during: str, *, before: str = "exec") -> "subprocess.Popen[str]":
    """A build that prints `ready` and waits where the real tool runs make."""
    env = environment(STANDIN_DURING=during)
    process = subprocess.Popen(
        ["bash", "-c", f"{before} lpmangle build -- livepatch-build {' '.join(options())}"],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while (line := process.stdout.readline()) != "ready\n":
        assert line, process.communicate()
    return process


# bash runs a trap after the current command: so it is a short one, repeated.
WAIT = 'echo ready; for i in {1..200}; do sleep 0.05; [ -z "${caught-}" ] || break; done'


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1])
def test_a_signal_reaches_the_build(folder: Path, number: signal.Signals) -> None:
    """The tool decides: here it exits with its own code."""
    process = start(folder, f"trap 'echo caught; exit 9' {number.name[3:]}; {WAIT}")
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (9, "caught\n")
    assert "lpmangle" not in stderr  # bash may report the signal that killed its `sleep`
    assert not list((folder / "out").glob("*.livepatch*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_kills_the_build(folder: Path, number: signal.Signals) -> None:
    process = start(folder, WAIT)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == -number


# Each has our standard output, so that `communicate` returns when all have ended.
OTHERS = {
    "children": "sh -c 'sleep 60 & sleep 60; true' &",
    "an orphan": "sh -c 'sleep 60 & true'",
    "a process group of its own": "timeout 900 sleep 60 &",
    "make -j": r"""printf 'all: a b c\na b c:\n\t@sleep 60\n' >jobs; make -j3 -f jobs &""",
    "one that starts others all the time": "sh -c 'for i in $(seq 300); do sleep 60 & sleep 0.001; done' &",
}


@pytest.mark.parametrize("others", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_that_the_build_has_started(folder: Path, number: signal.Signals, others: str) -> None:
    process = start(folder, f"{others}\necho ready; wait")
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == -number


def test_sigint_ends_what_the_build_waits_for(folder: Path) -> None:
    """Except what a shell without job control has started with `&`: that ignores SIGINT."""
    process = start(folder, "sh -c 'echo ready; sh -c \"sleep 60; true\"; true'")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT


def test_a_signal_leaves_others_alone(folder: Path) -> None:
    """A daemon that the build has started, and what was there before lpmangle."""
    daemon = "setsid sh -c 'echo $$ >daemon; exec sleep 60' >/dev/null 2>&1 &"
    during = f"cd {folder}; {daemon}\nuntil [ -s daemon ]; do sleep 0.05; done; echo ready; wait"
    process = start(folder, during, before="sleep 60 >/dev/null 2>&1 & echo $! >earlier; exec")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    for name in ("daemon", "earlier"):
        os.kill(int((folder / name).read_text()), signal.SIGKILL)  # it is there


def test_what_handles_a_signal_may_start_others(folder: Path) -> None:
    """Many scripts clean up like this: with commands, which must not be ended, too, and each script once."""
    nested = script(
        folder, "trap 'sleep 0.2; echo cleaned >>cleaned; exit' TERM; echo ready; sleep 60 & wait", "nested"
    )
    process = start(folder, f"cd {folder}; {nested} & wait")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    assert (folder / "cleaned").read_text() == "cleaned\n"


def test_an_interrupted_build_that_ends_well(folder: Path) -> None:
    """After an interrupt there is no message of success; the payload is as the linker left it."""
    process = start(folder, f"trap 'caught=1; echo going on' TERM; {WAIT}")
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=30)
    assert "going on\n" in stdout
    assert stderr.endswith("lpmangle: interrupted by SIGTERM, nothing was mangled\n")  # after what a shell may say
    assert process.returncode == -signal.SIGTERM
    assert not is_mangled(folder / "out" / "fix.livepatch")


def test_other_signals_are_no_interruption(folder: Path) -> None:
    process = start(folder, f"trap 'caught=1; echo status' USR1; {WAIT}")
    process.send_signal(signal.SIGUSR1)
    stdout, _ = process.communicate(timeout=30)
    assert "status\n" in stdout
    assert process.returncode == 0
    assert is_mangled(folder / "out" / "fix.livepatch")


def test_nohup(folder: Path) -> None:
    process = start(folder, "echo ready; kill -HUP $$; sleep 0.3", before="trap '' HUP; exec")
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert is_mangled(folder / "out" / "fix.livepatch")


def test_a_parent_that_ignores_children(folder: Path) -> None:
    """With SIGCHLD ignored, as some daemons leave it, the kernel keeps no exit codes."""
    process = start(folder, "echo ready; exit 5", before="trap '' CHLD; exec")
    process.communicate(timeout=30)
    assert process.returncode == 5


def on_terminal(folder: Path, command: list[str], keys: dict[str, str]) -> tuple[str, int]:
    """Run it as the foreground job of a terminal of its own; `keys` are typed when their word is shown."""
    child, terminal = os.forkpty()
    if child == 0:
        os.chdir(folder)
        os.execvpe(command[0], command, environment())
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if not (piece := os.read(terminal, 1000)):
                break
        except OSError:  # the last process has closed it
            break
        shown += piece
        for word in [word for word in keys if word.encode() in shown]:
            os.write(terminal, keys.pop(word).encode())
    os.close(terminal)
    return shown.decode().replace("\r\n", "\n"), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_terminal(folder: Path) -> None:
    """The command has the same terminal, also for input."""
    tool = script(
        folder, f"test -t 0 -a -t 1 -a -t 2 && tty; read -p 'name? ' name; echo hello $name; tput cols; {STANDIN}/$*"
    )
    shown, code = on_terminal(
        folder,
        ["lpmangle", "build", "--result=out/fix.livepatch", tool, "livepatch-build", *options()],
        {"name? ": "xen\n"},
    )
    assert code == 0, shown
    assert shown.startswith("/dev/pts/")
    assert "hello xen\n" in shown
    assert is_mangled(folder / "out" / "fix.livepatch")


def test_ctrl_c_once(folder: Path) -> None:
    """The terminal sends SIGINT to both: if it were passed on, it would come twice."""
    count = """\
import os, select, signal, time
reader, writer = os.pipe()
os.set_blocking(writer, False)
signal.set_wakeup_fd(writer)  # a byte for each signal, also for two that come close together
signal.signal(signal.SIGINT, lambda number, frame: None)
print("ready", flush=True)
select.select([reader], [], [], 60)
time.sleep(0.5)  # for a second one
open("caught", "wb").write(os.read(reader, 100))
"""
    shown, code = on_terminal(
        folder, ["lpmangle", "build", "--result=x", sys.executable, "-c", count], {"ready": "\x03"}
    )
    assert (folder / "caught").read_bytes() == bytes([signal.SIGINT]), shown
    assert code == -signal.SIGINT
    assert "interrupted by SIGINT" in shown


def test_ctrl_c_ends_the_script_around_it(folder: Path) -> None:
    loop = script(
        folder, "for i in 1 2 3; do lpmangle build --result=x sh -c 'echo ready; sleep 9'; echo next; done", "loop"
    )
    shown, code = on_terminal(folder, [loop], {"ready": "\x03"})
    assert "next" not in shown
    assert code == -signal.SIGINT


def test_input_output_and_descriptors(folder: Path) -> None:
    """Pipes, and what make hands to its children (the job server), go through."""
    tool = script(folder, f'cat; echo words >&2; echo fd 9 >&9; {STANDIN}/livepatch-build "$@"', "livepatch-build")
    shell = f"exec lpmangle build -- {tool} {' '.join(options())} 9>nine"
    done = run(["sh", "-c", shell], folder, stdin="typed")
    assert done.stdout.startswith("typedBuilding")
    assert done.stderr == "words\n"
    assert (folder / "nine").read_text() == "fd 9\n"


def test_output_is_not_held_back(folder: Path) -> None:
    process = start(folder, WAIT)  # "ready" came while the tool runs
    assert process.poll() is None
    process.terminate()
    process.communicate()


@pytest.mark.parametrize("code", [1, 2, 7, 126, 127, 255])
def test_a_build_that_fails(folder: Path, code: int) -> None:
    """Its exit code is ours, and its files do not change."""
    tool = script(folder, f'{STANDIN}/livepatch-build "$@"; exit {code}', "livepatch-build")
    done = run([*BUILD, tool, *options()], folder, code=code)
    assert done.stdout.endswith("created successfully\n")
    assert done.stderr == ""
    assert not is_mangled(folder / "out" / "fix.livepatch")


def test_a_build_that_cannot_start(folder: Path) -> None:
    build = ["lpmangle", "build", "--result", "x", "--"]
    assert "no-such-tool: cannot be started: No such file" in run([*build, "no-such-tool"], folder, code=127).stderr
    (folder / "text").write_text("text")
    assert "text: cannot be started: Permission denied" in run([*build, "./text"], folder, code=126).stderr
    run(["lpmangle", "build"], folder, code=2)
    run(["lpmangle", "build", "--no-such-option", "--", *TOOL, *options()], folder, code=2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGSEGV, signal.SIGKILL, signal.SIGPIPE])
def test_a_build_that_dies_of_a_signal(folder: Path, number: signal.Signals) -> None:
    """We die of the same signal: for a shell that is 128 + N, and for SIGINT the reason to end its script."""
    tool = script(folder, f'{STANDIN}/livepatch-build "$@"; kill -{number} $$; sleep 9', "livepatch-build")
    run([*BUILD, tool, *options()], folder, code=-number)
    assert not is_mangled(folder / "out" / "fix.livepatch")
    command = f"lpmangle build -- {tool} {' '.join(options(output='out2'))}; exit $?"
    run(["sh", "-c", command], folder, code=128 + number)
