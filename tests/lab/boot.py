"""A real Xen under QEMU: boots, runs commands in dom0, tells what they and Xen said.

QEMU's software emulation is enough. What is booted is in the lab's folder, made by prepare.py.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.labs import Lab, Machine

# Seconds without a word on the console after which a boot is given up; 10 are usual on two idle cores.
SILENCE = 120.0

QEMU = ("-m", "1024", "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio", "-monitor")
MONITOR = "unix:monitor,server,nowait"
# Where QEMU's guest-loader puts dom0's parts; its device tree lies at 0x48000000.
KERNEL_AT, INITRAMFS_AT = 0x50000000, 0x54000000
LINUX_OPTIONS = "console=hvc0 rdinit=/init panic=1 quiet mitigations=off"
# The jobs are done, or Xen has crashed (its last line with `noreboot`), or dom0 has.
END = re.compile(rb"^@@ done|Manual reset required|Kernel panic", re.MULTILINE)

# Said at any time, in the middle of what dom0 prints.
NOISE = re.compile(r"\(XEN\) uart interrupt taking more than [^\n]*\n")

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


class LabError(Exception):
    """The lab cannot be prepared, or dom0 did not start; the message says why."""


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
    """One boot, or several."""

    console: str
    results: dict[str, list[Result]]  # by job


def boot(lab: Lab, jobs: Sequence[Job], core: Path | None = None) -> Run:
    """Boots, runs all jobs in one dom0 and returns what each command did. `core` gets the machine's memory (1 GiB)."""
    script = []
    files = {name: text.encode() for name, text in SCRIPTS.items()}
    for job in jobs:
        place = f"jobs/{job.name}.d"
        files |= {f"{place}/{name}": data for name, data in job.files.items()}
        files[f"{place}/.job"] = b""
        script += [f"echo '@@ job {job.name}'", f"cd /{place}"]
        script += [f"run {shlex.quote(command)}" for command in job.commands]
    files["jobs/run"] = "\n".join([*script, ""]).encode()

    with tempfile.TemporaryDirectory(prefix="xen-run.") as name:
        work = Path(name)
        for part in ("xen", "vmlinuz"):
            (work / part).symlink_to(lab.folder / part)
        (work / "initramfs").write_bytes((lab.folder / "initramfs").read_bytes() + cpio(files))
        console = _qemu(lab.machine, work, core)
    if "@@ job " not in console:
        raise LabError(f"dom0 did not start; the end of the console:\n{console[-3000:]}")
    return Run(console, _results(console, jobs))


def boot_again(lab: Lab, jobs: Sequence[Job], keep: Path | None = None) -> Run:
    """Like boot; where a job takes the hypervisor down, those after it are run in another boot.

    `keep` is a file for the consoles of all boots, in their order.
    """
    left, console, results = list(jobs), "", dict[str, list[Result]]()
    while left:
        run = boot(lab, left)
        console += run.console
        if keep:
            keep.write_text(console)
        begun = [job for job in left if f"@@ job {job.name}\n" in run.console]
        results |= {job.name: run.results[job.name] for job in begun}
        left = left[len(begun) :]
    return Run(console, results)


def _qemu(machine: Machine, work: Path, core: Path | None) -> str:
    """The console's text up to the end of the jobs, a crash, or a long silence."""
    command = [*machine.qemu, *QEMU, MONITOR, "-kernel", "xen", "-append", machine.xen_options]
    if machine.guest_loader:
        command += ["-device", f"guest-loader,addr={KERNEL_AT:#x},kernel=vmlinuz,bootargs={LINUX_OPTIONS}"]
        command += ["-device", f"guest-loader,addr={INITRAMFS_AT:#x},initrd=initramfs"]
    else:
        command += ["-initrd", f"vmlinuz {LINUX_OPTIONS},initramfs"]
    # With setpriv QEMU dies with us, whatever kills us.
    process = subprocess.Popen(
        ("setpriv", "--pdeathsig", "KILL", *command),
        cwd=work,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    console = bytearray()
    try:
        while select.select([process.stdout], [], [], SILENCE)[0]:
            data = os.read(process.stdout.fileno(), 1 << 16)
            console += data
            if not data or END.search(console, max(0, len(console) - len(data) - 80)):
                break
        else:
            console += f"\n[lab: no word in {SILENCE:.0f} s]\n".encode()
        if core:
            _dump(work / "monitor", core)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    return NOISE.sub("", console.decode(errors="replace").replace("\r", ""))


def _dump(monitor: Path, core: Path) -> None:
    """The memory, at its virtual addresses, as a core file."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(120)
        connection.connect(str(monitor))
        said = b""
        for command in (b"", b"dump-guest-memory -p %b\n" % bytes(core)):
            connection.sendall(command)
            said = b""
            while not said.endswith(b"(qemu) "):
                said += connection.recv(1 << 16)
    if not core.exists():
        raise LabError(f"no core file: {said.decode(errors='replace')}")


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
