"""What is renamed: relocatable files made by this machine's assembler and linker, the same at every run."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

OVERRIDING, NEW, UNDEFINED, ABSOLUTE = 40, 25, 70, 50
FILES = ("x86_emulate", "rtc", "vpt", "grant_table", "hvm")
TWINS = ("calls.3", "calls.3.twin")  # become two LOCAL symbols called calls.3, from two source files


def payload(path: Path) -> None:
    """A payload as large as real ones get: about 300 symbols, few of them new, a section for each function."""
    _build(path, _payload_source())
    # The assembler would make relocations against LOCAL symbols relocations against their section.
    options = [f"--localize-symbol={name}" for name in TWINS]
    subprocess.run(["objcopy", *options, f"--redefine-sym={TWINS[1]}={TWINS[0]}", path], check=True)


def many(count: int, path: Path) -> None:
    """`count` new symbols in one section."""
    _build(path, _many_source(count))


def _build(path: Path, source: Iterator[str]) -> None:
    text, code = path.with_suffix(".s"), path.with_suffix(".o")
    with text.open("w") as file:
        file.writelines(source)
    subprocess.run(["as", text, "-o", code], check=True)
    text.unlink()
    subprocess.run(["ld", "-r", "--build-id=sha1", code, "-o", path], check=True)
    code.unlink()


def _payload_source() -> Iterator[str]:
    for index in range(ABSOLUTE):
        yield f'.set "{_file(index)}#CONSTANT_{index}", {index}\n'
    # GLOBAL: by what nm prints, a script cannot tell LOCAL ones from new symbols, and would rename them.
    for index in range(OVERRIDING):
        name = f"{_file(index)}#overriding_function_{index}"
        yield f'.globl "{name}"\n'
        yield from _symbol(name, ".text", "ax", "function", 256)
        yield from (f'.quad "{_file(n)}#hypervisor_symbol_{n}"\n' for n in range(index, UNDEFINED, OVERRIDING))
    for index in range(NEW):
        yield from _symbol(f"{_file(index)}#new_function_{index}", ".text", "ax", "function", 192)
        yield from _symbol(f"{_file(index)}#new_table_{index}.0", ".rodata", "a", "object", 64)
        yield f'.quad "{_file(index)}#new_function_{index}", .text + {index}\n'
    yield '.section .rodata.calls, "a", %progbits\n'
    yield from (f'.globl "{name}"\n"{name}": .quad 0\n' for name in TWINS)
    yield f'.data\n.quad "{TWINS[0]}", "{TWINS[1]}"\n'
    for index in range(OVERRIDING):  # struct livepatch_func, version 2
        name = f"{_file(index)}#overriding_function_{index}"
        yield f'.section .rodata.str1.1, "aMS", %progbits, 1\n1: .asciz "{name}"\n'
        yield f'.section .livepatch.funcs, "aw", %progbits\n.quad 1b, "{name}", 0\n.long 256, 256\n.byte 2\n.zero 71\n'
    for section in ("depends", "xen_depends"):
        yield f'.section .livepatch.{section}, "a", %note\n.long 4, 20, 3\n.asciz "GNU"\n.zero 20, 0xdd\n'


def _many_source(count: int) -> Iterator[str]:
    yield ".text\n"
    for index in range(count):
        name = f'"arch/x86/file_{index % 97}.c#function_{index}"'
        yield f".type {name}, %function\n{name}: .byte 0\n"


def _file(index: int) -> str:
    return FILES[index % len(FILES)] + ".c"


def _symbol(name: str, section: str, flags: str, kind: str, size: int) -> Iterator[str]:
    yield f'.section "{section}.{name}", "{flags}", %progbits\n.balign 16\n'
    yield f'.type "{name}", %{kind}\n.size "{name}", {size}\n"{name}": .zero {size}, 0x90\n'
