"""The hypervisor's table, rebuilt from a small program that is linked like xen-syms. tests/xen compares a real one."""

from pathlib import Path

import pytest
from toolchain import run

from lpmangle.errors import ElfError
from lpmangle.xen.xensyms import HypervisorSymbol, captured_symbols, hypervisor_symbols

SOURCE = """\
static int {0}counter;
static __attribute__((noipa)) int local(int by) {{ return {0}counter += by; }}
int {0}entry(int by) {{ return local(by); }}
"""


def test_names(tmp_path: Path) -> None:
    """Locals are named by their file, also where two files have the same name; absolute symbols are no part."""
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
    payload = Path(__file__).parent.parent / "examples" / "617712b.livepatch"
    with pytest.raises(ElfError, match="is ET_REL, not ET_EXEC"):
        hypervisor_symbols(payload.read_bytes())


def test_captured() -> None:
    text = b"ffff82d040000000 T __image_base__\nffff82d040200000 t x86_64/entry.S#restore_all_xen\n"
    assert captured_symbols(text)[1] == HypervisorSymbol(0xFFFF82D040200000, b"x86_64/entry.S#restore_all_xen")
    with pytest.raises(ElfError, match="line 2 is not"):
        captured_symbols(text[:34] + b"Linux version 6.1\n" + text[34:])
