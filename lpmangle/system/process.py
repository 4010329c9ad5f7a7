"""Runs a command as if it had been called itself: same terminal and files, signals passed on, its end kept.

Not `subprocess`: that closes the file descriptors of make's job server, and leaves signals to handlers that race with
the end of the command. Here they are blocked while the command runs, and taken one by one together with its end.
"""

import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from lpmangle.errors import CommandError

# A user's or a build system's wish to stop; the others are messages that only the command understands.
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_PASSED_ON = (*_STOPPING, signal.SIGUSR1, signal.SIGUSR2)
# siginfo_t.si_code of a signal that the kernel sent, such as a terminal for Ctrl-C (asm-generic/siginfo.h, SI_KERNEL).
_FROM_KERNEL = 0x80
# What Python ignores and the command must not inherit ignored.
_PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)


class End(NamedTuple):
    """How a command ended: its exit code, or minus the signal that killed it. `stopped_by` is the first signal that
    asked us to stop meanwhile, or 0."""

    code: int
    stopped_by: int


def run(command: Sequence[str]) -> End:
    """Run `command`, found in PATH, to its end. Raises CommandError if it cannot be started."""
    # What was ignored when we were started (nohup) is ignored by the command too, and not ours to pass on.
    passed_on = {number for number in _PASSED_ON if signal.getsignal(number) != signal.SIG_IGN}
    # Ignored, as some parents leave it, the kernel would throw the command's exit code away.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    waited_for = passed_on | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    try:
        try:
            child = os.posix_spawnp(command[0], list(command), os.environ, setsigmask=before, setsigdef=_PYTHON_IGNORES)
        except (OSError, ValueError) as error:
            raise CommandError(command[0], error) from None
        return _wait(child, waited_for)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait(child: int, waited_for: set[signal.Signals]) -> End:
    stopped_by = 0
    while True:
        info = signal.sigwaitinfo(waited_for)
        if info.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return End(os.waitstatus_to_exitcode(status), stopped_by)
            continue
        if info.si_signo in _STOPPING:
            stopped_by = stopped_by or info.si_signo
        # A terminal tells the whole foreground group: the command has had it. Twice may mean something else than once.
        if info.si_code != _FROM_KERNEL:
            os.kill(child, info.si_signo)


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
