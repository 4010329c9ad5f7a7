"""Builds livepatch payloads that a real Xen loads, from plain C and without Xen's build system.

The steps are those of livepatch-build's tail: compile each file, give local functions and objects
their FILE#NAME, link with `ld -r --build-id=sha1`, add the two depends sections.  The same input
gives the same bytes: nothing of the build's surroundings gets into the payload.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from toolchain import MACHINES, run, version

ROOT = Path(__file__).resolve().parent.parent
HEADER = ROOT / "examples" / "livepatch.h"
CACHE = ROOT / ".cache" / "payloads"

# Xen supports neither GOT nor 32S relocations, and has no FPU context and no red zone.
_COMMON = (
    *("-std=gnu11", "-O2", "-ffreestanding", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"),
    *("-fno-ident", "-Wall", "-Wextra", "-Werror"),
)
CFLAGS = (*_COMMON, "-fpic", "-mno-red-zone", "-mgeneral-regs-only", "-fcf-protection=none")
_ARM = (*_COMMON, "-fno-pic", "-fno-unwind-tables", "-fno-section-anchors")
# Long calls: with Xen on 32-bit Arm, a call over an odd number of words lands 4 bytes early.
FLAGS = {
    "x86_64": CFLAGS,
    "aarch64": (*_ARM, "-mgeneral-regs-only"),
    "arm": (*_ARM, "-marm", "-march=armv7-a", "-mfloat-abi=soft", "-mfpu=auto", "-mlong-calls"),
}


@dataclass(frozen=True)
class Source:
    """One C file of a payload."""

    code: str
    file: str = "x86_emulate.c"  # its local symbols become FILE#NAME; newer Xen: arch/x86/...
    new_file: bool = False  # new in the patch: then livepatch-build gives no prefix
    plain: tuple[str, ...] = ()  # single symbols without a prefix
    foreign: tuple[str, ...] = ()  # undefined symbols that are FILE#NAME; in the code it is NAME
    defines: tuple[str, ...] = ()  # "NAME=VALUE"


def build_payload(
    output: Path, sources: Iterable[Source], *, depends: bytes, xen_depends: bytes, machine: str = "x86_64"
) -> Path:
    """Builds `output` and returns it; `depends` and `xen_depends` are build-ids, `machine` is one of FLAGS."""
    with tempfile.TemporaryDirectory(prefix="livepatch-") as name:
        folder = Path(name)
        objects = [_compile(folder, number, source, machine) for number, source in enumerate(sources)]
        run(MACHINES[machine].tool("ld"), "-r", "--build-id=sha1", "-o", "payload", *objects, cwd=folder)
        for section, build_id in ((".depends", depends), (".xen_depends", xen_depends)):
            add_note(folder / "payload", f".livepatch{section}", build_id, machine)
        output.write_bytes((folder / "payload").read_bytes())
    return output


def cached_payload(
    output: Path, sources: Iterable[Source], *, depends: bytes, xen_depends: bytes, machine: str = "x86_64"
) -> Path:
    """The same, rebuilt only if a source, this code or a compiler has changed: a build takes a dozen processes."""
    sources, tool = list(sources), MACHINES[machine].tool
    key = hashlib.sha256(repr((sources, depends, xen_depends, machine)).encode())
    for path in (HEADER, Path(__file__), ROOT / "tests" / "toolchain.py"):
        key.update(path.read_bytes())
    for name in ("gcc", "ld", "objcopy"):
        key.update(version(tool(name)).encode())
    kept = CACHE / key.hexdigest()
    if not kept.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            os.replace(
                build_payload(
                    Path(scratch, "payload"), sources, depends=depends, xen_depends=xen_depends, machine=machine
                ),
                kept,
            )
    output.write_bytes(kept.read_bytes())
    return output


def add_note(payload: Path, section: str, build_id: bytes, machine: str = "x86_64") -> None:
    """Adds an ELF note with a build-id the way livepatch-build does, with two objcopy calls."""
    note = payload.with_suffix(".note")
    note.write_bytes(struct.pack("<3I4s", 4, len(build_id), 3, b"GNU\0") + build_id)
    flags = f"{section}=alloc,readonly"
    objcopy = MACHINES[machine].tool("objcopy")
    run(objcopy, "--add-section", f"{section}={note.name}", payload.name, cwd=payload.parent)
    run(objcopy, "--set-section-flags", flags, payload.name, cwd=payload.parent)
    if machine == "arm":  # Xen reads words there, and crashes if they are not aligned
        run(objcopy, "--set-section-alignment", f"{section}=4", payload.name, cwd=payload.parent)


def rename(path: Path, names: dict[str, str], machine: str = "x86_64") -> None:
    """Renames symbols in place; one by one, because in `--redefine-syms` files `#` begins a comment."""
    options = [f"--redefine-sym={old}={new}" for old, new in names.items()]
    run(MACHINES[machine].tool("objcopy"), *options, path.name, cwd=path.parent)


def local_symbols(path: Path) -> list[str]:
    """The names of the local functions and objects, in the order of the symbol table."""
    listing = run("readelf", "--symbols", "--wide", path.name, cwd=path.parent)
    rows = (line.split() for line in listing.splitlines())
    return [row[7] for row in rows if len(row) == 8 and row[3] in ("FUNC", "OBJECT") and row[4] == "LOCAL"]


def build_id(path: Path, section: str = ".note.gnu.build-id") -> bytes:
    """The build-id in a note section of a payload or of xen-syms, for any machine."""
    dump = run("readelf", f"--hex-dump={section}", str(path))
    # ADDRESS, four groups of eight digits, then the same as text
    rows = [line.lstrip().partition(" ")[2][:35] for line in dump.splitlines() if line.startswith("  0x")]
    return bytes.fromhex("".join(rows))[16:]


def _compile(folder: Path, number: int, source: Source, machine: str) -> str:
    # A folder of its own per file: two files of one name are possible, and the name gets into
    # the object as its FILE symbol.
    place = folder / str(number)
    place.mkdir()
    file = Path(source.file).name
    (place / file).write_text(source.code)
    (place / "livepatch.h").write_bytes(HEADER.read_bytes())
    defines = [f"-D{define}" for define in source.defines]
    tool = MACHINES[machine].tool
    run(tool("gcc"), *FLAGS[machine], *defines, "-c", "-o", "object.o", file, cwd=place)
    # livepatch-build's .livepatch.funcs has no symbols of its own
    run(tool("objcopy"), "--wildcard", "--strip-symbol=livepatch_entry_*", "object.o", cwd=place)
    rename(place / "object.o", {name.partition("#")[2]: name for name in source.foreign}, machine)
    if not source.new_file:
        names = [name for name in local_symbols(place / "object.o") if name not in source.plain]
        rename(place / "object.o", {name: f"{source.file}#{name}" for name in names}, machine)
    return f"{number}/object.o"
