"""Dom0 of a lab: what runs in it, and the machine with it booted, which is kept in the lab's folder.

A boot takes a quarter of a minute, so each lab boots once; every run then goes on from there, with jobs from its inbox.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from toolchain import MACHINES, run, version

from lab.labs import Lab, Machine
from lab.qemu import LabError, Qemu, command

# Dom0 is ready, or the jobs are done; or Xen has crashed (its last line with `noreboot`), or dom0 has.
READY = re.compile(rb"^@@ ready|Manual reset required|Kernel panic", re.MULTILINE)
END = re.compile(rb"^@@ done|Manual reset required|Kernel panic", re.MULTILINE)
ATTEMPTS = 5

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
for memory in /sys/bus/pci/devices/*/resource2*; do :; done
echo 1 >${memory%/*}/enable
begin() { echo "@@ begin"; }
end() { code=$?; echo "@@ output"; [ -z "$out" ] || printf '%s\\n' "$out"; echo "@@ end $code"; }
# Which job is the first one is typed, when all are there.
job() { [ -z "$first" ] || [ "$first" = "$1" ] && first= && echo "@@ job $1" && cd "/jobs/$1.d"; }
echo "@@ ready"
read -s -r first
inbox $memory | cpio -i -d
. /jobs/run
echo "@@ done"
poweroff -f
"""

# Newest first, as stacked payloads want it; only the list that is left is printed.
UNLOAD_ALL = """\
#!/bin/sh
list=$(xen-livepatch list)
case $list in "Nothing to list") ;; *)
    echo "$list" | awk '
        NR > 2 { steps[NR] = ($3 == "CHECKED" ? "" : "ask revert " $1 "\\n") "ask unload " $1 }
        END { for (row = NR; row > 2; row--) print steps[row] }
    ' | uploader >/dev/null 2>&1
    list=$(xen-livepatch list)
esac
echo "$list"
"""

SCRIPTS = {"init": INIT, "bin/unload-all": UNLOAD_ALL}
PROGRAMS = ("inbox", "uploader")


def booted(lab: Lab) -> Path:
    """The folder with all parts of a prepared lab's machine as it is when dom0 waits for jobs, and its console so far.

    Made for the first who asks; anew when the lab, QEMU or what is in dom0 has changed. Raises LabError.
    """
    initramfs = (lab.folder / "initramfs").read_bytes() + cpio(_files(lab.machine))
    qemu = [version(lab.machine.qemu[0]), *command(lab.machine)]
    made_of = [initramfs, (lab.folder / "lab.json").read_bytes(), "\n".join(qemu).encode()]
    state = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in made_of)).hexdigest()[:16]
    folder = lab.folder / f"booted-{state}"
    with (lab.folder.parent / f".{lab.folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            for old in lab.folder.glob("*booted-*"):
                shutil.rmtree(old)
            with tempfile.TemporaryDirectory(prefix=".booted-", dir=lab.folder) as name:
                work = Path(name) / "machine"
                work.mkdir()
                _boot(lab, work, initramfs)
                work.rename(folder)
    return folder


def _boot(lab: Lab, work: Path, initramfs: bytes) -> None:
    """Boots until the saved machine is one that goes on: on Arm, QEMU may save it at a moment when it does not."""
    for part in ("xen", "vmlinuz"):
        (work / part).symlink_to(lab.folder / part)
    (work / "initramfs").write_bytes(initramfs)
    for _ in range(ATTEMPTS):
        with Qemu(lab.machine, work) as qemu:
            qemu.listen(READY)
            if "@@ ready" not in qemu.console:
                raise LabError(f"dom0 did not start; the end of the console:\n{qemu.console[-3000:]}")
            qemu.save()
            (work / "console").write_text(f"{qemu.console}\n")
        with Qemu(lab.machine, work, saved=True) as qemu:
            qemu.begin(cpio({"jobs/run": b""}), "")
            if qemu.listen(END) and "@@ done" in qemu.console:
                break
    else:
        raise LabError(f"a saved machine does not go on; the end of the console:\n{qemu.console[-3000:]}")
    for gone in ("inbox", "monitor"):
        (work / gone).unlink()


def _files(machine: Machine) -> dict[str, bytes]:
    files = {name: text.encode() for name, text in SCRIPTS.items()}
    return files | {f"bin/{name}": _program(machine, name) for name in PROGRAMS}


@cache
def _program(machine: Machine, name: str) -> bytes:
    """What NAME.c is in dom0 of any lab of that machine."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / name
        options = ("-O2", "-static", "-Wall", "-Wextra", "-Werror")
        run(MACHINES[machine.compiler].tool("gcc"), *options, Path(__file__).parent / f"{name}.c", "-o", program)
        return program.read_bytes()


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
