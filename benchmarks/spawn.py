"""Runs one command and prints its exit code, wall time in seconds and peak memory in bytes: CPU_SECONDS COMMAND...

A program of its own, run with -I -S, because the peak that Linux reports for a process is at least that of the process
that started it, and this one is as small as a Python process gets.
"""

import os
import resource
import sys
import time


def main() -> None:
    limit, command = int(sys.argv[1]), sys.argv[2:]
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    start = time.perf_counter()
    child = os.fork()
    if not child:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.execvp(command[0], command)
        except OSError as error:
            os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(127)
    # The peak is that of the child or, if larger, that of the largest process that it waited for.
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - start
    print(os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss * 1024)


main()
