"""Lengths of instructions, compared with objdump on real code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypervisor import Small, base, upload
from lab.editor import Editor
from toolchain import run

from lpmangle.loader import WARNING
from lpmangle.loader.instructions import length

SOURCE = """
#include <stddef.h>
double mean(const double *v, size_t n) { double s = 0; for (size_t i = 0; i < n; i++) s += v[i]; return s / n; }
void add(float *a, const float *b, int n) { for (int i = 0; i < n; i++) a[i] += b[i] * 3.5f; }
unsigned long mix(unsigned long a, int n) { return (a << n | a >> (64 - n)) * 0x123456789abcdef1ul ^ 0x7f; }
int pick(unsigned n, int (*f[])(int)) { switch (n) { case 0: return f[3](9); case 1: return 7; case 2: return -1;
    case 3: return n * 77; case 4: return f[1](n); default: return __builtin_popcount(n); } }
static struct { char a; short b; int c; long d; } s;
void fill(int i) { s.a = i; s.b = 0x1234; s.c += 0x12345678; s.d = i / 7; __builtin_memset(&s, i, sizeof(s)); }
"""


@pytest.mark.parametrize(
    "options", [("-O0",), ("-O2",), ("-O3", "-mavx2"), ("-O3", "-mavx512f", "-mbmi2")], ids=" ".join
)
def test_compiled_code(options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "code.c").write_text(SOURCE)
    run("gcc", *options, "-c", "-o", tmp_path / "code.o", tmp_path / "code.c")
    _compare(tmp_path / "code.o", 50)


def test_a_library() -> None:
    """Every kind of instruction of the vector units; a FWAIT is shown as one with what follows it."""
    _compare(next(Path("/usr/lib/x86_64-linux-gnu").glob("libm.so.6")), 50_000)


def _compare(path: Path, fewest: int) -> None:
    listing = subprocess.run(["objdump", "-dw", path], check=True, capture_output=True, text=True).stdout
    rows = re.findall(r"^ *[0-9a-f]+:\t((?:[0-9a-f]{2} )+) *\t?(.*)$", listing, re.MULTILINE)
    wrong = [
        (code, words)
        for code, words in rows
        if "(bad)" not in words
        and not code.startswith("9b")
        and length(bytes.fromhex(code) + b"\0" * 16) != len(bytes.fromhex(code))
    ]
    assert not wrong[:5]
    assert len(rows) >= fewest


def test_what_is_no_whole_instruction() -> None:
    for code in (b"", b"\x48", b"\x0f", b"\xe8\1\2\3", b"\x66" * 16 + b"\x90", b"\x8f\xe8\x78\xc2\xec\x0e", b"\x06"):
        assert length(code) == 0
    assert length(b"\x66" * 14 + b"\x90") == 15


# ENDBR64 at xen_major_version, which is behind it made of a MOV of 7 bytes and a jump of 5.
CODE = bytes.fromhex("f30f1efa 48c7c001000000 e900000000")


@pytest.mark.parametrize(
    ("size", "warned"),
    [(4, ""), (11, ""), (16, ""), (10, "10 bytes are deleted, whole instructions are 4 or 11"),
     (15, "15 bytes are deleted, whole instructions are 11 or 16")],
)  # fmt: skip
def test_a_deletion_that_ends_inside_an_instruction(size: int, warned: str, monkeypatch: pytest.MonkeyPatch) -> None:

    code = bytearray(Small.code)
    code[0x300 : 0x300 + len(CODE)] = CODE
    monkeypatch.setattr(Small, "code", code)

    editor = Editor(base()).add(".livepatch.strings", b"xen_major_version\0")
    editor.edit_symbol(7, shndx=editor.count - 1).relocation(".rela.livepatch.funcs", 0, symbol=7, addend=0)
    editor.rename("xen_extra_version", "own").relocation(".rela.livepatch.funcs", 1, type=0)
    verdict = upload(editor.function(new_size=size, old_size=16).data)
    assert verdict.first is None
    found = [finding for finding in verdict.everything if finding.rule == "func-nop-inside"]
    assert [finding.detail for finding in found] == ([f"xen_major_version: {warned}"] if warned else [])
    assert all(finding.severity == WARNING for finding in found)
    assert verdict.good
