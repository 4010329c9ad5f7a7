"""Runs a command as if it had been called directly: same terminal and files, signals passed on, same end.

Not `subprocess`: that closes the file descriptors of make's job server, and leaves signals to handlers that race with
the end of the command. Here they are blocked while the command runs, and received one by one, as is its end.

Nor does the command get a process group of its own: only that would get Ctrl-C, and the shell script around us would
continue. So a request to stop reaches only our process, and we pass it on to everything that the command has started.
"""

import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from lpmangle.errors import CommandError

STDOUT, STDERR = 1, 2
# Requests of a user or a build system to stop; other signals are messages for the command.
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_PASSED_ON = (*_STOPPING, signal.SIGUSR1, signal.SIGUSR2)
# siginfo_t.si_code of a signal that the kernel sent, such as a terminal for Ctrl-C (asm-generic/siginfo.h, SI_KERNEL).
_FROM_KERNEL = 0x80
# Python ignores these, but the command must not inherit that.
_PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
# How often we look for new processes while we halt the others; only a fork bomb still has some then.
_ROUNDS = 50
# The state in which a process that was told to halt can still start another one: it finishes a fork first (proc(5)).
_RUNNING = b"R"


class End(NamedTuple):
    """How a command ended: its exit code, or minus the signal that killed it. `stopped_by` is the first signal that
    asked us to stop meanwhile, or 0."""

    code: int
    stopped_by: int


def run(command: Sequence[str], *, stdout: int = STDOUT) -> End:
    """Run `command`, found in PATH, to its end; its standard output goes to our descriptor `stdout`.

    Raises CommandError if it cannot be started.
    """
    # Signals that were ignored when we were started (nohup) are also ignored by the command, and not passed on.
    passed_on = {number for number in _PASSED_ON if signal.getsignal(number) != signal.SIG_IGN}
    # If it is ignored, as some parents leave it, the kernel discards the command's exit code.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    waited_for = passed_on | {signal.SIGCHLD}
    not_started_by_it = {os.getpid(), *_descendants()}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    try:
        with _adopting_orphans():
            try:
                child = os.posix_spawnp(
                    command[0],
                    list(command),
                    os.environ,
                    file_actions=[(os.POSIX_SPAWN_DUP2, stdout, STDOUT)] if stdout != STDOUT else (),
                    setsigmask=before,
                    setsigdef=_PYTHON_IGNORES,
                )
            except (OSError, ValueError) as error:
                raise CommandError(command[0], error) from None
            return _wait(child, waited_for, not_started_by_it)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(child: int, waited_for: set[signal.Signals], not_started_by_it: set[int]) -> End:
    stopped_by = 0
    while True:
        info = signal.sigwaitinfo(waited_for)
        if info.si_signo == signal.SIGCHLD:
            for ended, status in _ended():
                if ended == child:
                    return End(os.waitstatus_to_exitcode(status), stopped_by)
            continue
        if info.si_signo in _STOPPING:
            stopped_by = stopped_by or info.si_signo
        # A terminal signals the whole foreground group, so the command already has it. Twice may mean something else.
        if info.si_code == _FROM_KERNEL:
            continue
        if info.si_signo in _STOPPING:
            _tell_all(info.si_signo, child, not_started_by_it)
        else:
            os.kill(child, info.si_signo)


def _ended() -> Iterator[tuple[int, int]]:
    """The children that have ended, with their status: the command, or an orphan of it."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended


def _tell_all(number: int, child: int, not_started_by_it: set[int]) -> None:
    """Send a signal once to the command and to each process that it has started, as to a process group.

    They are halted first, because a running one could start another unnoticed; from the top down, because a halted
    parent does not release process numbers. They continue from the bottom up: a shell with job control should not see
    that its jobs were halted.
    """
    known = {child, *not_started_by_it}
    halted = [child] if _kill(child, signal.SIGSTOP) else []
    for _ in range(_ROUNDS):
        states = _descendants()
        found = [process for process in states if process not in known]
        known.update(found)
        halted += [process for process in found if _kill(process, signal.SIGSTOP)]
        if not found and _RUNNING not in map(states.get, halted):
            break
        time.sleep(0.001)  # lets them halt
    for process in halted:
        _kill(process, number)
    for process in reversed(halted):
        _kill(process, signal.SIGCONT)


def _kill(process: int, number: int) -> bool:
    """False if it has ended, or is another user's (sudo)."""
    try:
        os.kill(process, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _descendants() -> dict[int, bytes]:
    """Our children, their children and so on, in this order, with their states (proc(5)).

    Those with their own session, daemons, are left out.
    """
    children: dict[int, list[int]] = {}
    states: dict[int, bytes] = {}
    session = os.getsid(0)
    with suppress(FileNotFoundError):  # no /proc
        for name in os.listdir("/proc"):
            if name.isdigit():
                with suppress(OSError):  # it has ended
                    # proc(5): after the command's name in parentheses come state, parent, process group, session.
                    with open(f"/proc/{name}/stat", "rb") as file:
                        fields = file.read().rpartition(b")")[2].split()
                    if int(fields[3]) == session:
                        children.setdefault(int(fields[1]), []).append(int(name))
                        states[int(name)] = fields[0]
    found: list[int] = [os.getpid()]
    for process in found:
        found += children.get(process, ())
    return {process: states[process] for process in found[1:]}


@contextmanager
def _adopting_orphans() -> Iterator[None]:
    """Meanwhile, a process whose parent has ended becomes our child, so that we still know where it came from."""
    import ctypes  # only here: it takes some milliseconds, which runs without a command can save

    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def end_like(code: int) -> int:
    """The exit code for the end of a command. If a signal killed it, that signal kills us too and this does not return.

    For a shell both are exit code 128 + N; but only a command that dies of SIGINT makes it leave its script.
    """
    if code >= 0:
        return code
    sys.stdout.flush()
    with suppress(OSError, ValueError):  # a core file of ours would say nothing
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with suppress(OSError):  # SIGKILL has no handler
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
    return 128 - code  # process 1 of a container, which signals without a handler do not kill
