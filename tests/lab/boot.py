"""A real Xen under QEMU: runs commands in dom0, tells what they and Xen said.

QEMU's software emulation is enough. What runs is in the lab's folder, made by prepare.py and dom0.py.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.dom0 import END, booted, cpio
from lab.labs import Lab
from lab.qemu import LabError, Qemu


@dataclass
class Result:
    """What one command in dom0 did."""

    command: str
    code: int = -1  # -1: the hypervisor or dom0 did not live to see the end
    output: str = ""  # what the command printed
    console: str = ""  # what Xen printed meanwhile

    def __str__(self) -> str:
        return f"$ {self.command}\n{self.console}{self.output}[exit code {self.code}]\n"


@dataclass
class Job:
    """Commands to run in dom0, in a folder that holds `files`."""

    name: str
    commands: Sequence[str]
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    console: str  # from the first word of the boot
    results: dict[str, list[Result]]  # by job


def boot(
    lab: Lab, jobs: Sequence[Job], *, uploader: bool = False, core: Path | None = None, keep: Path | None = None
) -> Run:
    """Runs all jobs in one dom0 that has just booted, and returns what each command did.

    The commands are the shell's, or uploader.c's. Where a job takes the hypervisor down, those after it are run in
    another such dom0. `core` gets the machine's memory in the end (1 GiB), `keep` all that the console says.
    """
    machine, data = booted(lab), cpio(_files(jobs, uploader))
    left, results = list(jobs), dict[str, list[Result]]()
    console = (machine / "console").read_text()
    with tempfile.TemporaryDirectory(prefix="xen-run.") as name:
        for part in machine.iterdir():
            (Path(name) / part.name).symlink_to(part)
        while left:
            with Qemu(lab.machine, Path(name), saved=True) as qemu:
                qemu.begin(data, left[0].name)
                qemu.listen(END)
                if core:
                    qemu.dump(core)
                said = qemu.console
            console += said
            if keep:
                keep.write_text(console)
            done = _results(said, jobs)
            if not done:
                raise LabError(f"dom0 did nothing; the end of the console:\n{console[-3000:]}")
            results |= done
            left = [job for job in left if job.name not in done]
    return Run(console, results)


def _files(jobs: Sequence[Job], uploader: bool) -> dict[str, bytes]:
    """What dom0 gets for them: their files, and a script that begins with the job that is typed, `first`."""
    files: dict[str, bytes] = {}
    lines = []
    for job in jobs:
        files |= {f"jobs/{job.name}.d/{name}": data for name, data in {".job": b"", **job.files}.items()}
        if uploader:
            lines += [f"job {job.name}", *job.commands]
        else:
            # The shell needs only one process for this, if it is a simple command.
            commands = [f"begin; out=$(exec 2>&1; {command}\n); end" for command in job.commands]
            lines += [f"if job {job.name}; then", *commands, "fi"]
    text = "\n".join([*lines, ""]).encode()
    if uploader:
        return files | {"jobs/steps": text, "jobs/run": b"uploader $first </jobs/steps\n"}
    return files | {"jobs/run": text}


def _results(console: str, jobs: Sequence[Job]) -> dict[str, list[Result]]:
    """Those of the jobs that were begun."""
    by_name = {job.name: job for job in jobs}
    results = {}
    for piece in re.split(r"^@@ job ", console, flags=re.MULTILINE)[1:]:
        name, _, rest = piece.partition("\n")
        results[name] = [Result(command) for command in by_name[name].commands]
        pieces = re.split(r"^@@ begin\n", rest, flags=re.MULTILINE)[1:]
        for result, text in zip(results[name], pieces, strict=False):
            result.console, _, text = text.partition("@@ output\n")
            result.output, end, code = text.partition("@@ end ")
            result.code = int(code.split("\n")[0]) if end else -1
    return results
