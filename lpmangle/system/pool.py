"""The same work on many inputs, in one process or several, each input on its own.

Results come in the order of the inputs. If a worker process is killed, only the input that it was working on is lost;
when the parent is gone, workers end by themselves.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

T = TypeVar("T")
R = TypeVar("R")


def run(
    inputs: Sequence[T],
    work: Callable[[T], R],
    *,
    jobs: int,
    lost: Callable[[T], R],
    stop: Callable[[R], bool],
) -> Iterator[R]:
    """`work` done on each input by up to `jobs` processes.

    `lost` is the result of an input whose worker was killed. After a result for which `stop` is true no other input is
    begun; those that have been begun still give their results.
    """
    if jobs > 1 and len(inputs) > 1:
        yield from _Pool(inputs, work, min(jobs, len(inputs))).results(lost, stop)
        return
    for one in inputs:
        result = work(one)
        yield result
        if stop(result):
            return


class _Pool(Generic[T, R]):
    """Forked workers, each with its own pipe: they receive the number of an input and send its result."""

    def __init__(self, inputs: Sequence[T], work: Callable[[T], R], jobs: int) -> None:
        # Loaded here: a single payload must not pay for it.
        from multiprocessing import get_context

        self._context = get_context("fork")
        self._inputs = inputs
        self._work = work
        self._jobs = jobs
        self._next = 0
        self._workers: dict[Connection, BaseProcess] = {}
        self._busy: dict[Connection, int] = {}  # -> the number of its input

    def results(self, lost: Callable[[T], R], stop: Callable[[R], bool]) -> Iterator[R]:
        done: dict[int, R] = {}
        given = 0
        stopped = False
        try:
            for _ in range(self._jobs):
                self._hand_out(self._start())
            while self._busy:
                for connection in self._ready():
                    number = self._busy.pop(connection)
                    try:
                        done[number] = connection.recv()
                    except (EOFError, OSError):
                        done[number] = lost(self._inputs[number])
                        self._end(connection)
                        connection = self._start()
                    stopped = stopped or stop(done[number])
                    if not stopped:
                        self._hand_out(connection)
                while given in done:
                    yield done.pop(given)
                    given += 1
        finally:
            for connection in list(self._workers):
                self._end(connection)

    def _ready(self) -> "list[Connection]":
        from multiprocessing.connection import wait

        ready = wait(list(self._busy))
        return [connection for connection in self._busy if connection in ready]

    def _start(self) -> "Connection":
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=self._serve, args=(theirs, [ours, *self._workers]), daemon=True)
        # A worker must not be interrupted before it ignores that: Python's own steps after a fork would show a
        # traceback.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        self._workers[ours] = process
        return ours

    def _hand_out(self, connection: "Connection") -> None:
        if self._next < len(self._inputs):
            connection.send(self._next)
            self._busy[connection] = self._next
            self._next += 1

    def _end(self, connection: "Connection") -> None:
        connection.close()
        self._workers.pop(connection).join()

    def _serve(self, connection: "Connection", not_ours: "list[Connection]") -> None:
        # Ctrl-C reaches all processes: the parent decides, and a worker finishes what it has begun.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for other in not_ours:  # while one worker holds another's pipe, the other would not see its end
            other.close()
        while True:
            try:
                number = connection.recv()
            except (EOFError, OSError):
                return
            result = self._work(self._inputs[number])
            try:
                connection.send(result)
            except OSError:  # the parent is gone
                return
