"""Prepares the lab from Debian packages: a hypervisor, its symbols, a dom0 kernel and an initramfs.

Nothing is installed, nothing needs root. The packages are downloaded by name, unpacked, and what is needed of them is
kept in a cache folder: $LPMANGLE_LAB, or lpmangle/xen-lab in the user's cache. Remove it to have newer packages.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import lzma
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from xen.lab import Lab, LabError, cpio

RECIPE = 1  # raise it when what is prepared changes: an older cache is then made anew
MODULES = ("xen-privcmd", "xen-evtchn", "xenfs")


def default_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("LPMANGLE_LAB") or Path(cache) / "lpmangle" / "xen-lab")


def prepare(folder: Path | None = None) -> Lab:
    """The lab in `folder`, prepared first if it is not there; it appears whole or not at all."""
    lab = Lab(folder or default_folder())
    if platform.machine() != "x86_64":
        raise LabError("it needs an x86_64 machine")
    for tool in ("qemu-system-x86_64", "apt-get", "apt-cache", "dpkg-deb", "setpriv"):
        if not shutil.which(tool):
            package = {"qemu-system-x86_64": " (Debian package qemu-system-x86)"}.get(tool, "")
            raise LabError(f"{tool} is not installed{package}")
    if _is_complete(lab.folder):
        return lab
    try:
        _prepare(lab.folder)
    except OSError as error:
        raise LabError(f"it cannot be prepared in {lab.folder}: {error}") from None
    return lab


def _prepare(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}.tmp-"
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_complete(folder):  # by another process, while we waited
            return
        for left_behind in folder.parent.glob(f"{prefix}*"):
            shutil.rmtree(left_behind)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent) as name:
            work = Path(name)
            try:
                _fill(work / "lab", Packages(work / "packages"))
            except LabError:
                # The package lists may be missing or out of date: once more, with our own.
                _fill(work / "lab", Packages(work / "packages", own_lists=True))
            if folder.exists():
                folder.rename(work / "old")
            (work / "lab").rename(folder)


def _is_complete(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / "lab.json").read_text())["recipe"] == RECIPE)
    except (OSError, ValueError, KeyError, TypeError):
        return False


class Packages:
    """Debian packages, downloaded by name and unpacked into `root`; nothing needs to be root."""

    def __init__(self, folder: Path, own_lists: bool = False) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.versions: list[str] = []
        self.options: tuple[str, ...] = ()
        shutil.rmtree(folder, ignore_errors=True)
        self.root.mkdir(parents=True)
        if own_lists:
            (folder / "lists").mkdir()
            self.options = ("-o", f"Dir::State::lists={folder}/lists", "-o", f"Dir::Cache={folder}")
            _call("apt-get", *self.options, "-o", "APT::Update::Error-Mode=any", "update")

    def depends(self, package: str, pattern: str) -> list[str]:
        """The packages that `package` depends on and whose names match."""
        listing = _call("apt-cache", *self.options, "depends", "--important", package)
        names = re.findall(rf"^  (?:Pre)?Depends: ({pattern})$", listing, re.MULTILINE)
        return list(dict.fromkeys(names))

    def libraries(self, package: str) -> list[str]:
        """Xen's own libraries that `package` needs, directly or not."""
        found: list[str] = []
        queue = self.depends(package, "libxen.*")
        while queue:
            name = queue.pop()
            if name not in found:
                found.append(name)
                queue += self.depends(name, "libxen.*")
        return found

    def unpack(self, *names: str) -> None:
        for name in names:
            _call("apt-get", *self.options, "download", name, cwd=self.folder)
            for archive in self.folder.glob("*.deb"):
                _call("dpkg-deb", "-x", str(archive), str(self.root))
                self.versions.append(archive.name)
                archive.unlink()

    def file(self, pattern: str) -> Path:
        found = sorted(self.root.glob(pattern))
        if not found:
            raise LabError(f"{', '.join(self.versions)} contain no {pattern}")
        return found[0]


def _fill(lab: Path, packages: Packages) -> None:
    shutil.rmtree(lab, ignore_errors=True)
    lab.mkdir()
    # The metapackages know the versions.
    for name in packages.depends("xen-system-amd64", "xen-(?:hypervisor|utils)-[0-9].*"):
        packages.unpack(name)
        if name.startswith("xen-hypervisor"):
            packages.unpack(f"{name}-dbg")
        else:
            packages.unpack(*packages.libraries(name))
    packages.unpack(*packages.depends("linux-image-amd64", "linux-image-[0-9].*"), "busybox-static")

    (lab / "xen").write_bytes(gzip.decompress(packages.file("boot/xen-*-amd64.gz").read_bytes()))
    shutil.copy(packages.file("usr/lib/debug/boot/xen-syms-*-amd64"), lab / "xen-syms")
    shutil.copy(packages.file("boot/vmlinuz-*"), lab / "vmlinuz")

    tool = packages.file("usr/lib/xen-*/bin/xen-livepatch")
    busybox = packages.file("bin/busybox").read_bytes()
    files = {"bin/busybox": busybox, "bin/sh": busybox, "bin/xen-livepatch": tool.read_bytes()}
    for number, module in enumerate(MODULES):
        path = packages.file(f"lib/modules/*/kernel/drivers/xen/**/{module}.ko*")
        data = path.read_bytes()
        files[f"modules/{number}-{module}.ko"] = lzma.decompress(data) if path.suffix == ".xz" else data
    for library in _needed(tool, packages.root / "usr/lib/x86_64-linux-gnu"):
        place = "lib64" if library.name.startswith("ld-linux") else "lib/x86_64-linux-gnu"
        files[f"{place}/{library.name}"] = library.read_bytes()
    (lab / "initramfs").write_bytes(cpio(files, folders=("proc", "sys", "dev")))
    # Last: by its presence the folder is complete.
    (lab / "lab.json").write_text(json.dumps({"recipe": RECIPE, "packages": packages.versions}, indent=1))


def _needed(tool: Path, libraries: Path) -> list[Path]:
    """The files that the dynamic loader wants for `tool`, itself included."""
    listing = _call("ldd", str(tool), env={**os.environ, "LD_LIBRARY_PATH": str(libraries)})
    if "not found" in listing:
        raise LabError(f"libraries of xen-livepatch are missing:\n{listing}")
    return [Path(path) for path in re.findall(r"(?:^|=> )\s*(/\S+) \(", listing, re.MULTILINE)]


def _call(*command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    environment = {**(env or os.environ), "LC_ALL": "C"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        words = re.sub(r" -o \S+", "", " ".join(command))
        raise LabError(f"{words} failed: {done.stderr.strip()[-1000:]}")
    return done.stdout
