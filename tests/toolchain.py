"""The compilers, linkers and binary tools of the tests, for every machine they build for."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).parent / "data" / "src"

FREESTANDING = (
    "-O2",
    "-ffreestanding",
    "-fpic",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fno-unwind-tables",
    "-Wall",
    "-Wextra",
    "-Werror",
)


class MissingTool(RuntimeError):
    """A program that the tests need is not installed."""


@dataclass(frozen=True)
class Machine:
    gnu: str  # prefix of the GNU tools
    clang: tuple[str, ...]
    gcc: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()  # of both compilers
    ld: tuple[str, ...] = ()
    byte_order: str = "<"
    runner: tuple[str, ...] = ()  # runs the machine's programs

    def tool(self, name: str) -> str:
        return self.gnu + name


# Section anchors would hide that a file's variables are symbols of their own.
MACHINES = {
    "x86_64": Machine(
        gnu="",
        clang=("--target=x86_64-linux-gnu",),
        flags=("-mno-red-zone", "-mgeneral-regs-only", "-fcf-protection=none"),
    ),
    "aarch64": Machine(
        gnu="aarch64-linux-gnu-",
        clang=("--target=aarch64-linux-gnu",),
        gcc=("-fno-section-anchors",),
        runner=("qemu-aarch64-static",),
    ),
    "arm": Machine(
        gnu="arm-linux-gnueabihf-",
        clang=("--target=arm-linux-gnueabihf", "-march=armv7-a"),
        gcc=("-march=armv7-a+fp", "-fno-section-anchors"),
        flags=("-marm",),
        runner=("qemu-arm-static",),
    ),
    "aarch64_be": Machine(
        gnu="aarch64-linux-gnu-",
        clang=("--target=aarch64_be-linux-gnu",),
        ld=("-EB", "-m", "aarch64linuxb"),
        byte_order=">",
    ),
    "armeb": Machine(
        gnu="arm-linux-gnueabihf-",
        clang=("--target=armeb-linux-gnueabihf", "-march=armv7-a"),
        flags=("-marm",),
        ld=("-EB", "-m", "armelfb_linux_eabi"),
        byte_order=">",
    ),
}

PACKAGES = {
    "clang": "clang",
    "gcc": "gcc",
    "ld.lld": "lld",
    "llvm-objcopy": "llvm",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "arm-linux-gnueabihf-gcc": "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross",
    "qemu-aarch64-static": "qemu-user-static",
    "qemu-arm-static": "qemu-user-static",
    "chromium": "chromium",
}


def package_of(name: str) -> str:
    """The Debian package that has a program."""
    prefix = name.rpartition("-")[0]
    return PACKAGES.get(name) or (f"binutils-{prefix}" if prefix else "binutils")


@cache
def find(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise MissingTool(f"{name} is missing: apt-get install {package_of(name)}")
    return path


def run(name: str, *arguments: str | Path, cwd: Path | None = None) -> str:
    """The output of the program; its error messages are part of the error."""
    command = [find(name), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: rc {done.returncode}\n{done.stderr}")
    return done.stdout


@cache
def version(name: str) -> str:
    return run(name, "--version")


def compile_payload(machine: str, compiler: str, source: Path, output: Path, options: Sequence[str]) -> None:
    """One source as a payload's code is compiled, for any machine."""
    target = MACHINES[machine]
    command, own = ("clang", target.clang) if compiler == "clang" else (target.tool("gcc"), target.gcc)
    run(command, *own, *target.flags, *FREESTANDING, *options, "-c", source, "-o", output)


def link_relocatable(machine: str, linker: str, objects: Sequence[Path], output: Path) -> None:
    """`ld -r` as livepatch-build calls it."""
    target = MACHINES[machine]
    command, own = ("ld.lld", ()) if linker == "lld" else (target.tool("ld"), target.ld)
    run(command, *own, "-r", "--build-id=sha1", *objects, "-o", output)


def run_program(machine: str, payload: Path, folder: Path) -> str:
    """Link a payload with the driver into a program; what that prints when it runs."""
    target = MACHINES[machine]
    program = folder / "program"
    script = f"-Wl,-T,{SOURCES / 'driver.ld'}"
    options = ("-static", "-no-pie", "-Wl,--build-id=none", "-z", "noexecstack")
    run(target.tool("gcc"), *options, SOURCES / "driver.c", payload, script, "-o", program)
    return run(*target.runner, str(program))
