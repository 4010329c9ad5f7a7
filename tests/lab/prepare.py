"""Prepares a lab from Debian packages: a hypervisor, its symbols, a dom0 kernel and an initramfs.

Nothing is installed, nothing needs root. The packages are downloaded by name and unpacked; what is needed of them is
kept in the lab's folder below $LPMANGLE_LAB, or below lpmangle/labs in the user's cache. Remove it to have newer ones.
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
import tempfile
from pathlib import Path

from toolchain import MACHINES, package_of

from lab.dom0 import cpio
from lab.labs import Lab, Machine
from lab.packages import Packages, call
from lab.qemu import LabError
from lpmangle.loader.profile import XENSERVER

RECIPE = 1  # raise it when the preparation changes: the cache is then made again
MODULES = ("xen-privcmd", "xen-evtchn", "xenfs")
TOOLS = {"apt-get": "apt", "apt-cache": "apt", "dpkg-deb": "dpkg", "setpriv": "util-linux", "readelf": "binutils"}
BUILD_TOOLS = {"bison": "bison", "flex": "flex", "make": "make", "gcc": "gcc", "dpkg-source": "dpkg-dev"}


def prepare(lab: Lab) -> Lab:
    """Makes the lab ready if it is not; its folder appears whole or not at all. Raises LabError."""
    if platform.machine() != "x86_64":
        raise LabError("it needs an x86_64 machine")
    _check_tools({lab.machine.qemu[0]: lab.machine.qemu_package, **TOOLS})
    if _is_complete(lab.folder):
        return lab
    if lab.built:
        gcc = f"{MACHINES[lab.machine.compiler].gnu}gcc"
        _check_tools({**BUILD_TOOLS, gcc: package_of(gcc)})
    try:
        _prepare(lab)
    except OSError as error:
        raise LabError(f"it cannot be prepared in {lab.folder}: {error}") from None
    return lab


def _check_tools(wanted: dict[str, str]) -> None:
    missing = {tool: package for tool, package in wanted.items() if not shutil.which(tool)}
    if missing:
        raise LabError(f"{', '.join(missing)}: not installed (apt-get install {' '.join(missing.values())})")


def _prepare(lab: Lab) -> None:
    folder = lab.folder
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
            _fill(lab, work / "lab", Packages(work / "packages", lab.suite, lab.machine.debian, sources=lab.built))
            if folder.exists():
                folder.rename(work / "old")
            (work / "lab").rename(folder)


def _is_complete(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / "lab.json").read_text())["recipe"] == RECIPE)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _fill(lab: Lab, folder: Path, packages: Packages) -> None:
    folder.mkdir()
    # The metapackages know the versions.
    names = ["libc6", "busybox-static"]
    for name in packages.depends(f"xen-system-{lab.machine.debian}", "xen-(?:hypervisor|utils)-[0-9].*"):
        if name.startswith("xen-utils"):
            names += [name, *packages.libraries(name)]
        elif not lab.built:
            names += [name, f"{name}-dbg"] if packages.exists(f"{name}-dbg") else [name]
    packages.unpack(*names)
    kernel = packages.depends(lab.machine.kernel, "linux-image-[0-9].*")
    packages.unpack(*kernel, only=("./boot/vmlinuz-*", "*/drivers/xen/*"))  # of 400 MB

    if lab.built:
        source = packages.source("xen")
        if lab.vendor == XENSERVER:
            _take_duplicates(source / "xen" / "common" / "livepatch.c")
        _build_xen(lab, folder, source)
    else:
        (folder / "xen").write_bytes(_read(packages.file("boot/xen-*.gz")))
        symbols = packages.files("usr/lib/debug/boot/xen-syms-*") + packages.files("usr/lib/debug/xen-syms-*.gz")
        whole = [path for path in symbols if not path.name.endswith(".map.gz")]
        if not whole:
            raise LabError(f"{', '.join(packages.versions)} contain no xen-syms")
        (folder / "xen-syms").write_bytes(_read(whole[0]))
    shutil.copy(packages.file("boot/vmlinuz-*"), folder / "vmlinuz")
    (folder / "initramfs").write_bytes(_initramfs(packages))
    # Last: by its presence the folder is complete.
    (folder / "lab.json").write_text(json.dumps({"recipe": RECIPE, "packages": packages.versions}, indent=1))


def _read(path: Path) -> bytes:
    """A file of a package, unpacked if it is packed."""
    data = path.read_bytes()
    return {".gz": gzip.decompress, ".xz": lzma.decompress}.get(path.suffix, bytes)(data)


def _initramfs(packages: Packages) -> bytes:
    """busybox, xen-livepatch with its libraries, and the modules that it needs."""
    tool = packages.file("usr/lib/xen-*/bin/xen-livepatch")
    busybox = packages.file("**/bin/busybox").read_bytes()
    files = {"bin/busybox": busybox, "bin/sh": busybox, "bin/xen-livepatch": tool.read_bytes()}
    for number, module in enumerate(MODULES):
        for path in packages.files(f"**/kernel/drivers/xen/**/{module}.ko*"):  # none: it is in the kernel
            files[f"modules/{number}-{module}.ko"] = _read(path)
    loader, libraries = _needed(tool, packages.root)
    files[loader.lstrip("/")] = libraries.pop(loader).read_bytes()
    files |= {f"lib/{name}": path.read_bytes() for name, path in libraries.items()}
    return cpio(files, folders=("proc", "sys", "dev"))


def _needed(tool: Path, root: Path) -> tuple[str, dict[str, Path]]:
    """The path of the dynamic loader, and all files that it wants for `tool`, itself included: not this machine's."""
    found: dict[str, Path] = {}
    queue, loader = [tool], ""
    while queue:
        listing = call("readelf", "--dynamic", "--program-headers", "--wide", str(queue.pop()))
        names = re.findall(r"\(NEEDED\).*\[(.+)\]", listing)
        if interpreter := re.search(r"program interpreter: (\S+)\]", listing):
            loader = interpreter[1]
            names.append(loader)
        for name in names:
            if name in found or name == os.path.basename(loader):
                continue
            places = [path for path in sorted(root.glob(f"**/{os.path.basename(name)}")) if path.is_file()]
            if not places:
                raise LabError(f"xen-livepatch needs {name}, which is in none of the packages")
            found[name] = places[0]
            queue.append(places[0].resolve())
    return loader, found


def _take_duplicates(source: Path) -> None:
    """XenServer's "livepatch: Ignore duplicate new symbols": build_symbol_table prints its message and goes on."""
    refusal = r"(duplicate new symbol[^;]*;\n)\s*xfree\(symtab\);\n\s*xfree\(strtab\);\n\s*return -EEXIST;\n"
    code, count = re.subn(refusal, r"\1", source.read_text())
    if count != 1:
        raise LabError(f"{source.name}: what XenServer changes is not there")
    source.write_text(code)


def _build_xen(lab: Lab, folder: Path, source: Path) -> None:
    """A hypervisor with live patching; the same source gives the same bytes."""
    machine: Machine = lab.machine
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    }
    who = {"XEN_WHOAMI": "lpmangle", "XEN_DOMAIN": "lab", "XEN_BUILD_HOST": "lab", "XEN_BUILD_TIME": "00:00:00"}
    environment |= {**who, "XEN_BUILD_DATE": "2000-01-01", "PYTHON": "python3"}
    words = (
        f"XEN_TARGET_ARCH={machine.name}",
        f"CROSS_COMPILE={MACHINES[machine.compiler].gnu}",
        "EXTRA_CFLAGS_XEN_CORE=-Wno-error",  # a compiler that is newer than the source warns of more
    )

    def make(*targets: str) -> None:
        call("make", "-C", "xen", *words, *targets, cwd=source, env=environment)

    make("defconfig")
    with (source / "xen" / ".config").open("a") as config:
        config.write("CONFIG_LIVEPATCH=y\nCONFIG_FAST_SYMBOL_LOOKUP=y\n")
    make("olddefconfig")
    make(f"-j{os.cpu_count() or 1}")
    for name in ("xen", "xen-syms", "xen-syms.map"):
        shutil.copy(source / "xen" / name, folder / name)
