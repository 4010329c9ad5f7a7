"""A real Xen under QEMU: boots, runs commands in dom0, tells what they and Xen said.

QEMU's software emulation is enough. What is booted is in the lab's folder, made by prepare.py.
"""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from toolchain import MACHINES, run

from lab.labs import Lab, Machine
from lab.qemu import LabError, Qemu

# The jobs are done, or Xen has crashed (its last line with `noreboot`), or dom0 has.
END = re.compile(rb"^@@ done|Manual reset required|Kernel panic", re.MULTILINE)
READY = re.compile(rb"^@@ ready|Manual reset required|Kernel panic", re.MULTILINE)

SOURCE = Path(__file__).parent / "uploader.c"

# One command's marker lines: begin, what Xen prints while it runs, output, the command's own output,
# end with its exit code. Few processes, as each costs a tenth of a second under emulation.
INIT = """\
#!/bin/sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /modules/*.ko; do insmod $module; done
mount -t xenfs xenfs /proc/xen
run() {
    echo "@@ begin"
    out=$(eval "$1" 2>&1); code=$?
    echo "@@ output"; [ -z "$out" ] || printf '%s\n' "$out"; echo "@@ end $code"
}
first=
# Which job is the first one, if it is not the first of all, is typed.
job() { [ -z "$first" ] || [ "$first" = "$1" ] && first= && echo "@@ job $1"; }
. /jobs/run
echo "@@ done"
poweroff -f
"""

# Newest first, as stacked payloads want it; only the list that is left is printed.
UNLOAD_ALL = """\
#!/bin/sh
xen-livepatch list | awk 'NR > 2 { print $1, $3 }' | tac | while read name state; do
    [ $state = CHECKED ] || xen-livepatch revert $name
    xen-livepatch unload $name
done >/dev/null 2>&1
xen-livepatch list
"""

SCRIPTS = {"init": INIT, "bin/unload-all": UNLOAD_ALL}


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
    """Commands to run in dom0, in a folder that holds `files`: each by the shell, or all by uploader.c."""

    name: str
    commands: Sequence[str]
    files: Mapping[str, bytes] = field(default_factory=dict)
    uploader: bool = False


@dataclass(frozen=True)
class Run:
    """One boot, or several."""

    console: str
    results: dict[str, list[Result]]  # by job


def boot(lab: Lab, jobs: Sequence[Job], core: Path | None = None) -> Run:
    """Boots, runs all jobs in one dom0 and returns what each command did. `core` gets the machine's memory (1 GiB)."""
    with tempfile.TemporaryDirectory(prefix="xen-run.") as name:
        work = Path(name)
        _fill(work, lab, jobs)
        with Qemu(lab.machine, work) as qemu:
            qemu.listen(END)
            if core:
                qemu.dump(core)
            return _run(qemu, jobs)


def boot_again(lab: Lab, jobs: Sequence[Job], keep: Path | None = None) -> Run:
    """Like boot; where a job takes the hypervisor down, those after it are run all the same, as if it had just booted.

    For that the machine is put into a file before the first job. `keep` is a file for all that the console said.
    """
    with tempfile.TemporaryDirectory(prefix="xen-run.") as name:
        work, saved = Path(name), Path(name) / "saved"
        _fill(work, lab, jobs, wait=True)
        left, console, results, fresh = list(jobs), "", dict[str, list[Result]](), True
        while left:
            with Qemu(lab.machine, work, None if fresh else saved) as qemu:
                if not fresh:
                    qemu.wait_until_it_runs()
                elif qemu.listen(READY) and "@@ ready" in qemu.console:
                    qemu.save(saved)
                if saved.exists():
                    qemu.type(left[0].name)
                    qemu.listen(END)
                if not fresh and "@@ job " not in qemu.console:  # it did not come out of the file as it was
                    fresh = True
                    saved.unlink()
                    continue
                run, fresh = _run(qemu, left), False
            console += run.console
            if keep:
                keep.write_text(console)
            begun = [job for job in left if f"@@ job {job.name}\n" in run.console]
            results |= {job.name: run.results[job.name] for job in begun}
            left = left[len(begun) :]
    return Run(console, results)


def _fill(work: Path, lab: Lab, jobs: Sequence[Job], wait: bool = False) -> None:
    """The parts of the machine; dom0 waits to be told the first job, or begins."""
    script = ["echo '@@ ready'", "read -s -r first"] if wait else []
    files = {name: text.encode() for name, text in SCRIPTS.items()}
    for job in jobs:
        place = f"jobs/{job.name}.d"
        files |= {f"{place}/{name}": data for name, data in job.files.items()}
        files[f"{place}/.job"] = b""
        script += [f"if job {job.name}; then", f"cd /{place}"]
        if job.uploader:
            files |= {"bin/uploader": uploader(lab.machine), f"{place}/.steps": "\n".join([*job.commands, ""]).encode()}
            script += ["uploader <.steps", "fi"]
        else:
            script += [*(f"run {shlex.quote(command)}" for command in job.commands), "fi"]
    files["jobs/run"] = "\n".join([*script, ""]).encode()
    for part in ("xen", "vmlinuz"):
        (work / part).symlink_to(lab.folder / part)
    (work / "initramfs").write_bytes((lab.folder / "initramfs").read_bytes() + cpio(files))


@cache
def uploader(machine: Machine) -> bytes:
    """The program that uploader.c is, for dom0 of any lab of that machine."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "uploader"
        options = ("-O2", "-static", "-Wall", "-Wextra", "-Werror")
        run(MACHINES[machine.compiler].tool("gcc"), *options, SOURCE, "-o", program)
        return program.read_bytes()


def _run(qemu: Qemu, jobs: Sequence[Job]) -> Run:
    console = qemu.console
    if "@@ job " not in console:
        raise LabError(f"dom0 did not start; the end of the console:\n{console[-3000:]}")
    return Run(console, _results(console, jobs))


def _results(console: str, jobs: Sequence[Job]) -> dict[str, list[Result]]:
    results = {job.name: [Result(command) for command in job.commands] for job in jobs}
    for piece in re.split(r"^@@ job ", console, flags=re.MULTILINE)[1:]:
        name, _, rest = piece.partition("\n")
        pieces = re.split(r"^@@ begin\n", rest, flags=re.MULTILINE)[1:]
        for result, text in zip(results[name], pieces, strict=False):
            result.console, _, text = text.partition("@@ output\n")
            result.output, end, code = text.partition("@@ end ")
            result.code = int(code.split("\n")[0]) if end else -1
    return results


def cpio(files: Mapping[str, bytes], folders: Iterable[str] = ()) -> bytes:
    """A cpio archive (newc) for the kernel; all files are executable. Archives can be appended."""
    made = dict.fromkeys(folders)
    for path in files:
        made.update(dict.fromkeys(str(p) for p in reversed(Path(path).parents) if str(p) != "."))
    entries = [(name, 0o040755, b"") for name in made]
    entries += [(name, 0o100755, data) for name, data in files.items()]
    out = bytearray()
    for name, mode, data in [*entries, ("TRAILER!!!", 0, b"")]:
        encoded = name.encode() + b"\0"
        fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        out += b"070701" + b"".join(b"%08X" % value for value in fields) + encoded
        out += bytes(-len(out) % 4)
        out += data
        out += bytes(-len(out) % 4)
    return bytes(out)
