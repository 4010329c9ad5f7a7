"""The labs: which hypervisors the tests ask. A lab is data.

prepare.py makes it ready, dom0.py boots it, boot.py runs jobs in it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lpmangle.loader.profile import XENSERVER


@dataclass(frozen=True)
class Machine:
    """A kind of machine: how QEMU, Debian and the compilers call it, and how Xen is started on it."""

    name: str  # as in Xen's XEN_TARGET_ARCH
    debian: str  # the architecture of Debian's packages
    kernel: str  # the package that depends on the newest kernel
    compiler: str  # its name in toolchain.MACHINES
    qemu_package: str
    qemu: tuple[str, ...]
    xen_options: str
    guest_loader: bool  # Xen is told of dom0's parts by QEMU's guest-loader, not by multiboot

    @property
    def x86(self) -> bool:
        return self.name == "x86_64"


_CONSOLE = "loglvl=all guest_loglvl=all dom0_mem=512M noreboot sync_console"

X86_64 = Machine(
    name="x86_64",
    debian="amd64",
    kernel="linux-image-amd64",
    compiler="x86_64",
    qemu_package="qemu-system-x86",
    qemu=("qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", "Nehalem"),
    # The last two cost time under emulation, and nothing that we test depends on them.
    xen_options=f"console=com1 com1=115200,8n1 {_CONSOLE} xpti=off spec-ctrl=no",
    guest_loader=False,
)
ARM64 = Machine(
    name="arm64",
    debian="arm64",
    kernel="linux-image-arm64",
    compiler="aarch64",
    qemu_package="qemu-system-arm",
    qemu=("qemu-system-aarch64", "-machine", "virt,virtualization=on,gic-version=2", "-cpu", "cortex-a57"),
    xen_options=f"console=dtuart dtuart=/pl011@9000000 {_CONSOLE}",
    guest_loader=True,
)
ARM32 = Machine(
    name="arm32",
    debian="armhf",
    kernel="linux-image-armmp-lpae",
    compiler="arm",
    qemu_package="qemu-system-arm",
    qemu=("qemu-system-arm", "-machine", "virt,virtualization=on,gic-version=2,highmem=off", "-cpu", "cortex-a15"),
    xen_options=f"console=dtuart dtuart=/pl011@9000000 {_CONSOLE}",
    guest_loader=True,
)


@dataclass(frozen=True)
class Lab:
    """One hypervisor with a dom0. Prepared, its folder holds xen, xen-syms, xen-syms.map, vmlinuz and initramfs."""

    machine: Machine
    xen: str  # the version's branch
    suite: str  # of Debian: all packages are from there
    built: bool = False  # Debian's hypervisor has no live patching there: ours is built from Debian's source package
    vendor: str = ""  # built with what the vendor has changed in the loader, see prepare.py

    @property
    def name(self) -> str:
        return "-".join(filter(None, (self.machine.name, self.xen, self.vendor)))

    def __str__(self) -> str:
        return self.name

    @property
    def folder(self) -> Path:
        return cache() / self.name

    @property
    def xen_syms(self) -> Path:
        return self.folder / "xen-syms"

    @property
    def xen_map(self) -> Path:
        """What the build's own table of symbols holds, as in /proc/xen/xensyms; only of a hypervisor that we build."""
        return self.folder / "xen-syms.map"


LABS = (
    Lab(X86_64, "4.17", "bookworm"),
    Lab(X86_64, "4.20", "trixie"),
    Lab(X86_64, "4.14", "bullseye"),
    Lab(ARM64, "4.17", "bookworm", built=True),
    Lab(ARM32, "4.17", "bookworm", built=True),
    Lab(ARM64, "4.17", "bookworm", built=True, vendor=XENSERVER),
)
USUAL = LABS[:2]  # what `make test` asks; `make labs` asks all


def cache() -> Path:
    """Where labs are kept. If you remove one, it is prepared again, with newer packages."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("LPMANGLE_LAB") or Path(home) / "lpmangle" / "labs")


def thorough() -> bool:
    """Whether labs were asked for by name: then everything is asked, else what there is time for."""
    return bool(os.environ.get("LPMANGLE_LABS"))


def selected() -> list[Lab]:
    """The labs that LPMANGLE_LABS names: `all`, or names in a row; else the usual ones. Raises ValueError."""
    words = os.environ.get("LPMANGLE_LABS", "").split()
    if words == ["all"]:
        return list(LABS)
    known = {lab.name: lab for lab in LABS}
    if unknown := [word for word in words if word not in known]:
        raise ValueError(f"LPMANGLE_LABS: no lab is called {unknown[0]}; there are {', '.join(known)}")
    return [known[word] for word in words] or list(USUAL)
