"""The hypervisor's table, rebuilt from a small program that is linked like xen-syms. tests/lab compares a real one."""

import gzip
from pathlib import Path

import pytest
from commands import EXAMPLES
from toolchain import run

from lpmangle.errors import ElfError
from lpmangle.xen.hypervisor import Hypervisor
from lpmangle.xen.xensyms import HypervisorSymbol, captured_symbols, hypervisor_symbols

SOURCE = """\
static int {0}counter;
static __attribute__((noipa)) int local(int by) {{ return {0}counter += by; }}
int {0}entry(int by) {{ return local(by); }}
"""


def test_names(tmp_path: Path) -> None:
    """Locals are named by their file, even if two files have the same name; absolute symbols are left out."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.c").write_text(SOURCE.format(f"{name}_"))
        run("gcc", "-O2", "-ffreestanding", "-fno-pie", "-c", "-o", tmp_path / f"{name}.o", f"{tmp_path}/{name}.c")
    xen_syms = tmp_path / "xen-syms"
    objects = [tmp_path / "one.o", tmp_path / "two.o"]
    run("ld", "-o", xen_syms, "--entry=one_entry", "--defsym=start_pa=0x200000", *objects)
    symbols = hypervisor_symbols(xen_syms.read_bytes())
    names = {symbol.name for symbol in symbols}
    assert {b"one.c#local", b"one.c#one_counter", b"one_entry", b"two.c#local", b"two.c#two_counter"} <= names
    assert b"start_pa" not in names
    assert not {b"local", b"one.c", b".text"} & names
    assert [symbol.address for symbol in symbols] == sorted(symbol.address for symbol in symbols)


def test_a_payload_is_no_hypervisor() -> None:
    payload = EXAMPLES / "617712b.livepatch"
    with pytest.raises(ElfError, match="is ET_REL, not ET_EXEC"):
        hypervisor_symbols(payload.read_bytes())


def test_a_stripped_hypervisor(tmp_path: Path) -> None:
    """A bootable hypervisor has no names: the hint is about hypervisors, not payloads."""
    (tmp_path / "one.c").write_text(SOURCE.format("one_"))
    run("gcc", "-O2", "-ffreestanding", "-fno-pie", "-c", "-o", tmp_path / "one.o", tmp_path / "one.c")
    xen_syms = tmp_path / "xen-syms"
    run("ld", "-o", xen_syms, "--entry=one_entry", tmp_path / "one.o")
    assert b"one.c#local" in Hypervisor.at(str(xen_syms)).symbols
    packed = tmp_path / "xen.gz"
    packed.write_bytes(gzip.compress(xen_syms.read_bytes()))
    run("strip", xen_syms)
    text = tmp_path / "text"
    text.write_text("no table\n")
    for path, message in ((xen_syms, "no symbol table"), (packed, "compressed with gzip"), (text, "line 1 is not")):
        with pytest.raises(ElfError, match=message) as caught:
            Hypervisor.at(str(path))
        assert "take the xen-syms" in caught.value.hint
        assert "livepatch-build" not in caught.value.hint


def test_captured() -> None:
    text = b"ffff82d040000000 T __image_base__\nffff82d040200000 t x86_64/entry.S#restore_all_xen\n"
    assert captured_symbols(text)[1] == HypervisorSymbol(0xFFFF82D040200000, b"x86_64/entry.S#restore_all_xen")
    with pytest.raises(ElfError, match="line 2 is not"):
        captured_symbols(text[:34] + b"Linux version 6.1\n" + text[34:])


VERSION = """\
#pragma GCC visibility push(hidden)
extern const char extra[];
unsigned int xen_major_version(void) { return 4; }
unsigned int xen_minor_version(void) { return 17; }
const char *xen_extra_version(void) { return extra; }
"""
EXTRA = 'const char extra[] = ".5-pre (Debian)";\nint other = 1;\n'
COMPILERS = {
    "x86_64": ("gcc", "-fcf-protection=none", "-fpic"),
    "x86_64 with ENDBR64": ("gcc", "-fcf-protection=full", "-fpic"),
    "arm64": ("aarch64-linux-gnu-gcc", "-fno-pic"),
    "arm32": ("arm-linux-gnueabihf-gcc", "-fno-pic", "-marm", "-march=armv7-a", "-mfloat-abi=soft"),
}


def linked(machine: str, folder: Path, extra: str = EXTRA) -> bytes:
    compiler, *options = COMPILERS[machine]
    for name, code in (("version", VERSION), ("extra", extra)):
        (folder / f"{name}.c").write_text(code)
        run(compiler, "-O2", "-ffreestanding", *options, "-c", "-o", folder / f"{name}.o", f"{folder}/{name}.c")
    objects = [folder / "version.o", folder / "extra.o"]
    run(f"{compiler.removesuffix('gcc')}ld", "-o", folder / "xen-syms", "--entry=xen_major_version", *objects)
    return (folder / "xen-syms").read_bytes()


@pytest.mark.parametrize("machine", COMPILERS)
def test_the_version_is_read_from_its_code(machine: str, tmp_path: Path) -> None:
    assert Hypervisor.read_from(linked(machine, tmp_path)).version == (4, 17, 5)
    other = linked(machine, tmp_path, 'const char extra[] = "-unstable";\n')
    assert Hypervisor.read_from(other).version == (4, 17, 99)
    changed = other.replace(b"-unstable", b".1.2.3.4\0")
    assert Hypervisor.read_from(changed).version is None


def test_names_of_sections(tmp_path: Path) -> None:
    """If the linker keeps symbols of sections, they are names of the hypervisor: on Arm, and in Xen 4.14."""
    names = {symbol.name for symbol in hypervisor_symbols(linked("arm64", tmp_path))}
    assert {b".text", b".rodata", b".data", b"xen_major_version"} <= names
    assert b".comment" not in names  # not loaded
