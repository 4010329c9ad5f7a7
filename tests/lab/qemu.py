"""QEMU as a machine for Xen: start it, read its console, type; save it to a file and continue from there."""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.labs import Machine

# Seconds without output on the console after which a machine is given up; 10 are usual on two idle cores.
SILENCE = 120.0

INBOX_SIZE = 64 << 20
OPTIONS = (
    *("-m", "1024", "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"),
    *("-monitor", "unix:monitor,server,nowait"),
    # A device whose memory is a file: inbox.c reads it. Only a master's state can be saved.
    *("-object", f"memory-backend-file,id=inbox,mem-path=inbox,size={INBOX_SIZE},share=on"),
    *("-device", "ivshmem-plain,memdev=inbox,master=on"),
)
# Where QEMU's guest-loader puts dom0's parts; its device tree is at 0x48000000.
KERNEL_AT, INITRAMFS_AT = 0x50000000, 0x54000000
SAVED = "saved"
# Without random addresses, QEMU translates the code of a program only once.
LINUX_OPTIONS = "console=hvc0 rdinit=/init panic=1 quiet mitigations=off norandmaps"

# These lines appear at any time, in the middle of dom0's output.
NOISE = re.compile(r"\(XEN\) uart interrupt taking more than [^\n]*\n")


class LabError(Exception):
    """The lab cannot be prepared, or dom0 did not start; the message says why."""


def command(machine: Machine) -> list[str]:
    """How QEMU is called, in the folder of the machine's parts."""
    words = [*machine.qemu, *OPTIONS, "-kernel", "xen", "-append", machine.xen_options]
    if machine.guest_loader:
        words += ["-device", f"guest-loader,addr={KERNEL_AT:#x},kernel=vmlinuz,bootargs={LINUX_OPTIONS}"]
        words += ["-device", f"guest-loader,addr={INITRAMFS_AT:#x},initrd=initramfs"]
    else:
        words += ["-initrd", f"vmlinuz {LINUX_OPTIONS},initramfs"]
    return words


class Qemu:
    """One run of the machine whose parts (xen, vmlinuz, initramfs) are in a folder: from its boot, or from the state
    that `save` has put there."""

    def __init__(self, machine: Machine, work: Path, saved: bool = False) -> None:
        words = [*command(machine), *(("-incoming", f"exec:cat {SAVED}") if saved else ())]
        self._inbox = work / "inbox"
        self._saved = work / SAVED
        self._monitor = work / "monitor"
        self._monitor.unlink(missing_ok=True)
        self._console = bytearray()
        # With setpriv, QEMU ends with us, whatever kills us.
        self._process = subprocess.Popen(
            ("setpriv", "--pdeathsig", "KILL", *words),
            cwd=work,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream
            stream.close()

    @property
    def console(self) -> str:
        """Everything on the console so far."""
        return NOISE.sub("", self._console.decode(errors="replace").replace("\r", ""))

    def listen(self, end: re.Pattern[bytes]) -> bool:
        """Wait until a line matches `end`. False if there is no more output before."""
        assert self._process.stdout
        while select.select([self._process.stdout], [], [], SILENCE)[0]:
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            self._console += data
            if end.search(self._console, max(0, len(self._console) - len(data) - 80)):
                return True
            if not data:
                return False
        self._console += f"\n[lab: no word in {SILENCE:.0f} s]\n".encode()
        return False

    def begin(self, inbox: bytes, line: str) -> None:
        """Let a saved machine go on, with data in its inbox and a line typed into dom0's console."""
        self._wait_until_it_runs()  # what is there before is lost
        with self._inbox.open("r+b") as file:
            file.write(len(inbox).to_bytes(8, "little") + inbox)
            if file.tell() > INBOX_SIZE:
                raise LabError(f"{len(inbox)} bytes are too much for the inbox")
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def _wait_until_it_runs(self) -> None:
        end = time.monotonic() + SILENCE
        while time.monotonic() < end and self._process.poll() is None:
            if self._monitor.is_socket() and "VM status: running" in self._command("info status"):
                return
            time.sleep(0.05)
        raise LabError("QEMU does not go on with the machine that is in a file")

    def save(self) -> None:
        """Save the running machine, in the folder of its parts."""
        self._command("migrate_set_parameter max-bandwidth 10G", f'migrate "exec:cat >{SAVED}"')
        if not self._saved.exists() or not self._saved.stat().st_size:
            raise LabError("QEMU cannot put the machine into a file")

    def dump(self, core: Path) -> None:
        """The memory, at its virtual addresses, as a core file."""
        said = self._command(f"dump-guest-memory -p {core}")
        if not core.exists():
            raise LabError(f"no core file: {said}")

    def _command(self, *commands: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(120)
            connection.connect(str(self._monitor))
            everything = b""
            for command in ("", *commands):
                connection.sendall(f"{command}\n".encode() if command else b"")
                said = b""
                while not said.endswith(b"(qemu) "):
                    said += connection.recv(1 << 16)
                everything += said
        return everything.decode(errors="replace")
