"""Payloads as Xen loads them, built from tests/data/src.

`build_corpus(folder)` compiles and links all of them and returns name -> Item. expected.py says
what each symbol is for Xen.

    shape                                               item
    every machine, gcc and clang, GNU ld and lld        MACHINE-COMPILER-LINKER
    debug information                                   *-g
    funcs of version 1 (64 bytes, 52 on arm)            *-v1; all others version 2 (104, 92)
    32-bit, SHT_REL with addends in place               arm-*, armeb-*
    big-endian                                          aarch64_be-*, armeb-*
    sections added by llvm-objcopy                      *-lld*
    undefined file#name, GLOBAL                         all with emulate
    undefined file#name, LOCAL                          *-und-local (`ld -r` is the last step)
    undefined file#name made LOCAL ABS                  *-prelink
    LOCAL ABS NOTYPE; LOCAL NOTYPE                      all with entry (TRAP_MAX; entry_pad)
    two symbols on one overriding address               all with entry (do_entry_alias)
    locals without prefix; WEAK                         all with helper (lp_helper; hook pointer)
    .LC and .L.str in MERGE sections                    x86_64-*, arm-*
    mapping symbols, one st_name for many               aarch64-gcc-*, arm-gcc-*
    st_name inside another name                         all with helper (emulate_retry)
    one table for .strtab and .shstrtab                 *-clang-c
    several FILE symbols                                *-ld, *-lld
    one name in two files, prefixed                     all with fix_a (fix_check.constprop.0)
    one name in two files, equal                        x86_64-twins
    LOCAL group signature                               x86_64-group, x86_64-group-lld
    names of 85, 110, 126, 127, 140 bytes               x86_64-long-names
    1023 sections                                       x86_64-1023-sections
    overriding by LOCAL function symbol                 all with emulate (x86_emulate)
    overriding by GLOBAL function symbol                all with emulate (x86_emulate_wrapper)
    overriding by section symbol plus addend            all with entry (do_entry)
    overriding only if sections are side by side         x86_64-boundary (end_of_first)
    no funcs, only a load hook                          *-hooks

test_corpus.py proves that each of them is there.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from expected import LONG_NAMES, SYMBOLS, Expected
from toolchain import MACHINES, SOURCES, compile_payload, link_relocatable, run, version

DATA = SOURCES.parent
SHN_UNDEF, SHN_ABS = 0, 0xFFF1
PLACEHOLDER = "domain.c#hv_paused"  # defined for the compiler, then made undefined or absolute
BY_LOCAL_SYMBOL = "x86_emulate.c#x86_emulate"  # GLOBAL for the compiler: relocations keep it
NOTE_DESC = {".livepatch.depends": b"\xdd" * 20, ".livepatch.xen_depends": b"\xee" * 20}
PATCH = ("emulate", "helper", "fix_a", "fix_b", "entry")


@dataclass(frozen=True)
class Spec:
    """How an item is made. A part is a source; `add_sections` is objcopy, after the linker."""

    machine: str
    compiler: str
    linker: str | None  # None: the output of `cc -c` is the payload
    parts: tuple[str, ...] = PATCH
    debug: bool = False
    version: int = 2
    add_sections: bool = True
    placeholder: int = SHN_UNDEF
    sections: int = 0  # add sections up to this number
    runs: bool = True  # a program made from it runs here

    @property
    def expected(self) -> Expected:
        return sum((SYMBOLS[part] for part in self.parts), Expected())


@dataclass(frozen=True)
class Item:
    name: str
    path: Path
    spec: Spec
    expected: Expected = field(repr=False)


def _specs() -> Iterator[tuple[str, Spec]]:
    for machine in ("x86_64", "aarch64", "arm"):
        for compiler, linker in product(("gcc", "clang"), ("ld", "lld")):
            spec = Spec(machine, compiler, linker)
            yield f"{machine}-{compiler}-{linker}", spec
            if (compiler, linker) in (("gcc", "ld"), ("clang", "lld")):
                yield f"{machine}-{compiler}-{linker}-g", replace(spec, debug=True)
        spec = Spec(machine, "gcc", "ld")
        yield f"{machine}-v1", replace(spec, version=1)
        yield f"{machine}-hooks", replace(spec, parts=("hooks",))
        yield f"{machine}-prelink", replace(spec, placeholder=SHN_ABS)
        # The linkers for Arm refuse to make a program of a LOCAL undefined symbol.
        parts, runs = (*PATCH, "notes"), machine == "x86_64"
        yield f"{machine}-und-local", replace(spec, parts=parts, add_sections=False, runs=runs)
        yield f"{machine}-gcc-c", Spec(machine, "gcc", None, ("single",))
        yield f"{machine}-clang-c", Spec(machine, "clang", None, ("single",))
    yield "aarch64_be-clang-ld", Spec("aarch64_be", "clang", "ld", runs=False)
    for machine in ("aarch64_be", "armeb"):
        yield f"{machine}-clang-c", Spec(machine, "clang", None, ("single",), runs=False)
    spec = Spec("x86_64", "gcc", "ld")
    yield "x86_64-twins", replace(spec, parts=("emulate", "fix_a_plain", "fix_b_plain"))
    yield "x86_64-group", replace(spec, parts=("emulate", "group"))
    yield "x86_64-group-lld", Spec("x86_64", "clang", "lld", ("emulate", "group"))
    yield "x86_64-boundary", replace(spec, parts=("boundary",), runs=False)
    yield "x86_64-long-names", replace(spec, parts=("hooks", "long_names"))
    yield "x86_64-1023-sections", replace(spec, sections=1023)


SPECS = dict(_specs())
# Committed, for tests that cannot use compilers.
FIXTURES = (
    "x86_64-gcc-ld",
    "x86_64-clang-lld",
    "x86_64-clang-c",
    "x86_64-und-local",
    "x86_64-group",
    "aarch64-gcc-ld",
    "arm-gcc-ld",
    "aarch64_be-clang-c",
)


def build_corpus(folder: Path) -> dict[str, Item]:
    """All items, built in `folder`."""
    for name in ("objects", "items", "steps"):
        (folder / name).mkdir(parents=True)
    _generate_sources(folder)
    objects = {}
    for spec in SPECS.values():
        for part in spec.parts:
            objects[_object(folder, spec, part)] = (spec, part)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: _compile(folder, *job), objects.values()))
        list(pool.map(lambda name: _link(folder, name), SPECS))
    return items(folder)


def items(folder: Path) -> dict[str, Item]:
    """What `build_corpus` has built there before."""
    return {
        name: Item(name, folder / "items" / f"{name}.livepatch", spec, spec.expected) for name, spec in SPECS.items()
    }


def cached_corpus(cache: Path) -> dict[str, Item]:
    """The corpus, rebuilt only if a source, this code or a compiler has changed."""
    key = hashlib.sha256()
    here = Path(__file__)
    for path in (here, here.with_name("toolchain.py"), *sorted(SOURCES.iterdir())):
        key.update(path.read_bytes())
    gnu = (target.tool(name) for target in MACHINES.values() for name in ("gcc", "ld"))
    for name in ("clang", "ld.lld", "llvm-objcopy", *gnu):
        key.update(version(name).encode())
    folder = cache / f"corpus-{key.hexdigest()[:16]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "corpus.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process builds, the others wait
        if not folder.is_dir():
            for old in cache.glob("corpus-*"):
                shutil.rmtree(old, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                build_corpus(Path(scratch) / "corpus")
                (Path(scratch) / "corpus").rename(folder)
    return items(folder)


def fixtures() -> dict[str, Item]:
    """The committed items."""
    return {name: Item(name, DATA / f"{name}.livepatch", SPECS[name], SPECS[name].expected) for name in FIXTURES}


def _generate_sources(folder: Path) -> None:
    lines = ['    .section .rodata.long, "a", %progbits']
    lines += [f'    .type "{name}", %object\n"{name}": .long 1' for name in LONG_NAMES]
    (folder / "long_names.S").write_text("\n".join(lines) + "\n")


def _object(folder: Path, spec: Spec, part: str) -> Path:
    debug = "-g" if spec.debug else ""
    return folder / "objects" / f"{part}-{spec.machine}-{spec.compiler}-v{spec.version}{debug}.o"


def _compile(folder: Path, spec: Spec, part: str) -> None:
    name = part.removesuffix("_plain")
    prefixes = ("", "") if name != part else ("rtc.c#", "vpt.c#")
    options = [f"-DFUNCS_VERSION={spec.version}"]
    options += [f'-DPREFIX_{x}="{p}"' for x, p in zip("AB", prefixes, strict=True)]
    options += ["-g"] if spec.debug else []
    candidates = (SOURCES / f"{name}.c", SOURCES / f"{name}.S", folder / f"{name}.S")
    source = next(path for path in candidates if path.exists())
    compile_payload(spec.machine, spec.compiler, source, _object(folder, spec, part), options)


def _link(folder: Path, name: str) -> None:
    spec = SPECS[name]
    steps = folder / "steps" / name
    steps.mkdir()
    objects = [_object(folder, spec, part) for part in spec.parts]
    output = folder / "items" / f"{name}.livepatch"
    if spec.linker is None:
        shutil.copyfile(objects[0], output)
        return
    if "emulate" in spec.parts:
        # lld drops LOCAL undefined symbols in a later `ld -r`, so it gets them GLOBAL.
        localized = [BY_LOCAL_SYMBOL] + [PLACEHOLDER] * (spec.linker == "ld")
        options = [f"--localize-symbol={symbol}" for symbol in localized]
        objcopy = MACHINES[spec.machine].tool("objcopy")
        run(objcopy, *options, objects[0], steps / "emulate.o")
        objects[0] = steps / "emulate.o"
    link_relocatable(spec.machine, spec.linker, objects, output)
    if spec.sections:
        missing = spec.sections - _count_sections(output)
        objects.append(_filler(spec, steps, missing))
        link_relocatable(spec.machine, spec.linker, objects, output)
    if "emulate" in spec.parts:
        _redefine(output, PLACEHOLDER, spec.placeholder)
    if spec.add_sections:
        _add_sections(spec, output, steps)


def _filler(spec: Spec, steps: Path, count: int) -> Path:
    source = steps / "filler.S"
    # objcopy adds two more sections.
    count -= 2 * spec.add_sections
    lines = (f'.section .rodata.filler.{i}, "a", %progbits\n.byte 1\n' for i in range(count))
    source.write_text("".join(lines))
    output = steps / "filler.o"
    compile_payload(spec.machine, spec.compiler, source, output, ())
    return output


def _count_sections(path: Path) -> int:
    with path.open("rb") as file:
        return int(ELFFile(file).num_sections())


def _redefine(path: Path, name: str, shndx: int) -> None:
    """Make a defined symbol undefined or absolute, which no tool does."""
    data = bytearray(path.read_bytes())
    with path.open("rb") as file:
        elf = ELFFile(file)
        table = elf.get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        index = [symbol.name for symbol in table.iter_symbols()].index(name)
        at = table["sh_offset"] + index * table["sh_entsize"]
        order = "<" if elf.little_endian else ">"
        value = 0x1000 if shndx == SHN_ABS else 0
        if elf.elfclass == 64:
            struct.pack_into(f"{order}HQQ", data, at + 6, shndx, value, 0)
        else:
            struct.pack_into(f"{order}II", data, at + 4, value, 0)
            struct.pack_into(f"{order}H", data, at + 14, shndx)
    path.write_bytes(data)


def _add_sections(spec: Spec, path: Path, steps: Path) -> None:
    order = MACHINES[spec.machine].byte_order
    options = []
    for name, desc in NOTE_DESC.items():
        note = steps / name
        note.write_bytes(struct.pack(f"{order}III4s", 4, len(desc), 3, b"GNU") + desc)
        options += [f"--add-section={name}={note}", f"--set-section-flags={name}=alloc,readonly"]
    own = MACHINES[spec.machine].tool("objcopy")
    run("llvm-objcopy" if spec.linker == "lld" else own, *options, path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the corpus of test payloads.")
    parser.add_argument("folder", type=Path, nargs="?", help="keep all of it in this new folder")
    parser.add_argument("--update-fixtures", action="store_true", help=f"write those in {DATA}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        built = build_corpus(options.folder or Path(scratch) / "corpus")
        if options.update_fixtures:
            for name, fixture in fixtures().items():
                shutil.copyfile(built[name].path, fixture.path)


if __name__ == "__main__":
    main()
