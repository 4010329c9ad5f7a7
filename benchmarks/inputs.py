"""What is renamed: relocatable files made by this machine's assembler and linker, the same at every run."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

# Of the large one, which has about 300 symbols with those of its sections; the small one has a fifth.
OVERRIDING, NEW, UNDEFINED, ABSOLUTE = 40, 25, 70, 50
FILES = ("x86_emulate", "rtc", "vpt", "grant_table", "hvm")
TWINS = ("calls.3", "calls.3.twin")  # become two LOCAL symbols called calls.3, from two source files


def payload(path: Path, fraction: int = 1, padding: int = 0) -> None:
    """A payload as large as real ones get: about 300 symbols, few of them new, a section for each function.

    Or one with a `fraction` of these symbols, or with so many bytes more, as if of debug information (`padding`).
    """
    _build(path, _payload_source(fraction, padding))
    # The assembler would make relocations against LOCAL symbols relocations against their section.
    options = [f"--localize-symbol={name}" for name in TWINS]
    subprocess.run(["objcopy", *options, f"--redefine-sym={TWINS[1]}={TWINS[0]}", path], check=True)


def payloads(folder: Path, count: int, padding: int = 0) -> None:
    """Such a payload, again and again with another build-id: p000.livepatch and so on."""
    payload(folder / "p", padding=padding)
    data = (folder / "p").read_bytes()
    at = data.index(b"GNU\0", data.index(b"\x14\0\0\0\x03\0\0\0GNU\0")) + 4
    for number in range(count):
        build_id = number.to_bytes(2, "big") * 10
        (folder / f"p{number:03}.livepatch").write_bytes(data[:at] + build_id + data[at + 20 :])


def many(count: int, path: Path) -> None:
    """`count` new symbols in one section."""
    _build(path, _many_source(count))


def debug(path: Path, size: int) -> None:
    """A payload with DWARF of all its functions and types, of at least `size` bytes."""
    count = size // 1000
    while not path.exists() or path.stat().st_size < size:
        source = path.with_suffix(".c")
        with source.open("w") as file:
            file.writelines(_c_source(count))
        subprocess.run(["gcc", "-g3", "-O1", "-fPIC", "-c", source, "-o", f"{path}.o"], check=True)
        subprocess.run(["ld", "-r", "--build-id=sha1", f"{path}.o", "-o", path], check=True)
        count += count // 2


def manifest(path: Path, build_id: str, names: dict[str, str]) -> None:
    """The manifest of a payload that was never built; `names` maps originals to new names."""
    content = {"sha256": hashlib.sha256(build_id.encode()).hexdigest(), "size": 1}
    fields = {"section": ".text", "value": 16, "size": 16, "type": "FUNC", "binding": "LOCAL", "st_name": 1}
    symbols = [{"index": at, "original": old, "name": new, **fields} for at, (old, new) in enumerate(names.items(), 1)]
    head = {
        "format": "lpmangle-manifest", "version": "1.0", "payload": path.name.partition(".")[0], "machine": "x86_64",
        "build_id": build_id, "depends": None, "xen_depends": None, "input": content, "output": content,
        "string_table": {"section": 1, "offset": 64, "size": 1}, "suffix": build_id,
        "options": {"suffix": "buildid", "template": "{symbol}_{suffix}", "scope": "local", "only": [], "keep": []},
    }  # fmt: skip
    path.write_text(json.dumps(head | {"symbols": symbols}))


def _c_source(count: int) -> Iterator[str]:
    for index in range(count):
        yield (
            f"struct s{index} {{ int a{index}; struct s{index} *next{index}; char name{index}[{index % 60 + 1}]; }};\n"
            f"static __attribute__((noinline)) int f_{index}(struct s{index} *p, int n)\n"
            f"{{ int i, sum = 0; for (i = 0; i < n && p; i++, p = p->next{index}) sum += p->a{index}; return sum; }}\n"
            f"int caller_{index}(struct s{index} *p) {{ return f_{index}(p, {index}); }}\n"
        )


def _build(path: Path, source: Iterator[str]) -> None:
    text, code = path.with_suffix(".s"), path.with_suffix(".o")
    with text.open("w") as file:
        file.writelines(source)
    subprocess.run(["as", text, "-o", code], check=True)
    text.unlink()
    subprocess.run(["ld", "-r", "--build-id=sha1", code, "-o", path], check=True)
    code.unlink()


def _payload_source(fraction: int, padding: int) -> Iterator[str]:
    overriding, new, undefined, absolute = (n // fraction for n in (OVERRIDING, NEW, UNDEFINED, ABSOLUTE))
    for index in range(absolute):
        yield f'.set "{_file(index)}#CONSTANT_{index}", {index}\n'
    # GLOBAL: by what nm prints, a script cannot tell LOCAL ones from new symbols, and would rename them.
    for index in range(overriding):
        name = f"{_file(index)}#overriding_function_{index}"
        yield f'.globl "{name}"\n'
        yield from _symbol(name, ".text", "ax", "function", 256)
        yield from (f'.quad "{_file(n)}#hypervisor_symbol_{n}"\n' for n in range(index, undefined, overriding))
    for index in range(new):
        yield from _symbol(f"{_file(index)}#new_function_{index}", ".text", "ax", "function", 192)
        yield from _symbol(f"{_file(index)}#new_table_{index}.0", ".rodata", "a", "object", 64)
        yield f'.quad "{_file(index)}#new_function_{index}", .text + {index}\n'
    yield '.section .rodata.calls, "a", %progbits\n'
    yield from (f'.globl "{name}"\n"{name}": .quad 0\n' for name in TWINS)
    yield f'.data\n.quad "{TWINS[0]}", "{TWINS[1]}"\n'
    for index in range(overriding):  # struct livepatch_func, version 2
        name = f"{_file(index)}#overriding_function_{index}"
        yield f'.section .rodata.str1.1, "aMS", %progbits, 1\n1: .asciz "{name}"\n'
        yield f'.section .livepatch.funcs, "aw", %progbits\n.quad 1b, "{name}", 0\n.long 256, 256\n.byte 2\n.zero 71\n'
    if padding:
        yield f'.section .debug_padding, ""\n.zero {padding}\n'
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
