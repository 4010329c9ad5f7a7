"""The corpus has every shape that its table promises, as pyelftools sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import toolchain
from corpus import SPECS, Item, fixtures
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection
from expected import LONG_NAMES
from toolchain import MissingTool, find

SHF_ALLOC, SHF_MERGE = 2, 0x10
E_MACHINE = {
    "x86_64": "EM_X86_64",
    "aarch64": "EM_AARCH64",
    "aarch64_be": "EM_AARCH64",
    "arm": "EM_ARM",
    "armeb": "EM_ARM",
}


class Reading:
    """One item as pyelftools reads it."""

    def __init__(self, elf: ELFFile) -> None:
        self.elf = elf
        self.sections = list(elf.iter_sections())
        self.by_name = {section.name: section for section in self.sections}
        table = self.by_name[".symtab"]
        assert isinstance(table, SymbolTableSection)
        self.symbols = list(table.iter_symbols())

    def has(self, name: str, bind: str, kind: str | None = None, shndx: str | None = None) -> bool:
        """Whether there is such a symbol; without `shndx` a defined one."""
        return any(
            (symbol.name, symbol.entry.st_info.bind) == (name, f"STB_{bind}")
            and kind in (None, symbol.entry.st_info.type.removeprefix("STT_"))
            and (symbol.entry.st_shndx == shndx or (shndx is None and self.section(symbol)))
            for symbol in self.symbols
        )

    def section(self, symbol: Any) -> Any | None:
        shndx = symbol.entry.st_shndx
        return self.sections[shndx] if isinstance(shndx, int) else None

    def named(self, prefix: str, flag: int = SHF_ALLOC) -> list[Any]:
        """Symbols whose name begins so, in sections with the flag."""
        found = (symbol for symbol in self.symbols if symbol.name.startswith(prefix))
        return [s for s in found if (section := self.section(s)) and section["sh_flags"] & flag]

    def st_names(self, symbols: list[Any]) -> list[int]:
        return [symbol.entry.st_name for symbol in symbols]

    def function_symbols(self) -> Iterator[tuple[str, str, int]]:
        """Binding, type and addend of the target of each new_addr in .livepatch.funcs."""
        funcs = self.by_name[".livepatch.funcs"]
        pointer = self.elf.elfclass // 8
        version = funcs.data()[3 * pointer + 8]
        size = {(8, 1): 64, (8, 2): 104, (4, 1): 52, (4, 2): 92}[pointer, version]
        assert funcs["sh_size"] % size == 0
        table = self.by_name[".rela.livepatch.funcs" if pointer == 8 else ".rel.livepatch.funcs"]
        assert isinstance(table, RelocationSection)
        for entry in table.iter_relocations():
            at = entry["r_offset"]
            if at % size != pointer:
                continue
            info = self.symbols[entry["r_info_sym"]].entry.st_info
            in_place = int.from_bytes(funcs.data()[at : at + pointer], "little" if self.elf.little_endian else "big")
            addend = entry["r_addend"] if entry.is_RELA() else in_place
            yield info.bind.removeprefix("STB_"), info.type.removeprefix("STT_"), addend


@contextmanager
def reading(path: Path) -> Iterator[Reading]:
    with path.open("rb") as file:
        yield Reading(ELFFile(file))


def _fix_checks(r: Reading, prefixes: tuple[str, str]) -> bool:
    names = [s.name for s in r.symbols if s.name.endswith("fix_check.constprop.0")]
    return names == [f"{prefix}fix_check.constprop.0" for prefix in prefixes]


def _shared(r: Reading, prefix: str) -> bool:
    """Several symbols of one name with one st_name."""
    found = [(s.name, s.entry.st_name) for s in r.symbols if s.name.startswith(prefix)]
    return any(times > 1 for times in Counter(found).values())


def _tail(r: Reading) -> bool:
    long, short = (r.named(name)[0].entry.st_name for name in ("x86_emulate.c#em", "emulate_r"))
    return bool(short - long == len("x86_emulate.c#"))


def _group(r: Reading) -> bool:
    group = r.by_name[".group"]
    signature = r.symbols[group["sh_info"]]
    return signature.name == "group.c#signature" and r.has(signature.name, "LOCAL", "OBJECT")


def _boundary(r: Reading) -> bool:
    first, patched = (r.named(f"edge.c#{name}")[0] for name in ("end_of_first", "patched"))
    at_end = first.entry.st_value == r.sections[first.entry.st_shndx]["sh_size"]
    return bool(at_end and patched.entry.st_shndx == first.entry.st_shndx + 1)


def _one_table(r: Reading) -> bool:
    table = r.elf["e_shstrndx"]
    return bool(r.by_name[".symtab"]["sh_link"] == table) and ".shstrtab" not in r.by_name


def _addend(r: Reading, section: str, kind: str) -> bool:
    return r.by_name[f".{kind}{section}"]["sh_type"] == f"SHT_{kind.upper()}"


GNU_PATCHES = ("x86_64-gcc-ld", "aarch64-gcc-ld", "arm-gcc-ld")
PATCHES = (*GNU_PATCHES, "x86_64-clang-lld", "aarch64-clang-lld", "arm-clang-lld")
SHAPES: dict[str, tuple[tuple[str, ...], Callable[[Reading], bool]]] = {
    "GLOBAL undefined file#name": (
        PATCHES,
        lambda r: (
            r.has("domain.c#hv_domain", "GLOBAL", shndx="SHN_UNDEF")
            and r.has("domain.c#hv_paused", "GLOBAL", shndx="SHN_UNDEF")
        ),
    ),
    "LOCAL undefined file#name": (
        ("x86_64-und-local", "aarch64-und-local", "arm-und-local"),
        lambda r: r.has("domain.c#hv_paused", "LOCAL", shndx="SHN_UNDEF"),
    ),
    "LOCAL absolute file#name": (
        ("x86_64-prelink", "aarch64-prelink", "arm-prelink"),
        lambda r: r.has("domain.c#hv_paused", "LOCAL", shndx="SHN_ABS"),
    ),
    "LOCAL ABS NOTYPE": (
        PATCHES,
        lambda r: r.has("traps.c#TRAP_MAX", "LOCAL", "NOTYPE", "SHN_ABS"),
    ),
    "LOCAL NOTYPE": (PATCHES, lambda r: r.has("traps.c#entry_pad", "LOCAL", "NOTYPE")),
    "locals without prefix": (
        PATCHES,
        lambda r: r.has("lp_helper", "LOCAL", "FUNC") and r.has("calls.3", "LOCAL", "OBJECT"),
    ),
    "WEAK": (PATCHES, lambda r: r.has("livepatch_load_data_lp_load", "WEAK", "OBJECT")),
    ".LC in MERGE": (
        ("x86_64-gcc-ld", "arm-gcc-ld"),
        lambda r: len(r.named(".LC", SHF_MERGE)) > len({s.name for s in r.named(".LC", SHF_MERGE)}),
    ),
    ".L.str in MERGE": (
        ("x86_64-clang-lld", "arm-clang-lld"),
        lambda r: any(s.entry.st_info.type == "STT_OBJECT" for s in r.named(".L.str", SHF_MERGE)),
    ),
    "mapping symbols with one st_name": (
        ("aarch64-gcc-ld", "arm-gcc-ld"),
        lambda r: _shared(r, "$d") and (_shared(r, "$x") or _shared(r, "$a")),
    ),
    "st_name inside another name": (GNU_PATCHES, _tail),
    "one table for both": (tuple(name for name in SPECS if name.endswith("clang-c")), _one_table),
    "several FILE symbols": (
        PATCHES,
        lambda r: sum(s.entry.st_info.type == "STT_FILE" for s in r.symbols) >= 2,
    ),
    "one name, two prefixes": (PATCHES, lambda r: _fix_checks(r, ("rtc.c#", "vpt.c#"))),
    "one name twice": (("x86_64-twins",), lambda r: _fix_checks(r, ("", ""))),
    "LOCAL group signature": (("x86_64-group", "x86_64-group-lld"), _group),
    "long names": (
        ("x86_64-long-names",),
        lambda r: (
            [len(s.name) for s in r.named("long.c#")] == [85, 110, 126, 127, 140]
            and {s.name for s in r.named("long.c#")} == set(LONG_NAMES)
        ),
    ),
    "1023 sections": (("x86_64-1023-sections",), lambda r: r.elf["e_shnum"] == 1023),
    "overriding by LOCAL function": (
        PATCHES,
        lambda r: ("LOCAL", "FUNC", 0) in r.function_symbols(),
    ),
    "overriding by GLOBAL function": (
        PATCHES,
        lambda r: ("GLOBAL", "FUNC", 0) in r.function_symbols(),
    ),
    "overriding by section symbol plus addend": (
        PATCHES,
        lambda r: ("LOCAL", "SECTION", 16) in r.function_symbols(),
    ),
    "end of one section before the patched function in the next": (("x86_64-boundary",), _boundary),
    "hooks only": (
        ("x86_64-hooks", "aarch64-hooks", "arm-hooks"),
        lambda r: ".livepatch.funcs" not in r.by_name and ".livepatch.hooks.load" in r.by_name,
    ),
    "version 1": (
        ("x86_64-v1", "aarch64-v1", "arm-v1"),
        lambda r: (
            r.by_name[".livepatch.funcs"].data()[32 if r.elf.elfclass == 64 else 20] == 1
            and len(list(r.function_symbols())) == 6
        ),
    ),
    "version 2": (
        PATCHES,
        lambda r: (
            r.by_name[".livepatch.funcs"].data()[32 if r.elf.elfclass == 64 else 20] == 2
            and len(list(r.function_symbols())) == 6
        ),
    ),
    "SHT_REL": (("arm-gcc-ld", "armeb-clang-c"), lambda r: _addend(r, ".text", "rel")),
    "SHT_RELA": (("x86_64-gcc-ld", "aarch64-gcc-ld"), lambda r: _addend(r, ".text", "rela")),
    "big-endian": (
        ("aarch64_be-clang-ld", "aarch64_be-clang-c", "armeb-clang-c"),
        lambda r: not r.elf.little_endian,
    ),
    "debug information": (
        tuple(name for name in SPECS if name.endswith("-g")),
        lambda r: r.by_name[".debug_info"]["sh_size"] > 0,
    ),
    "sections after .strtab": (
        ("x86_64-clang-lld", "arm-clang-lld"),
        lambda r: list(r.by_name).index(".livepatch.depends") > list(r.by_name).index(".strtab"),
    ),
    ".strtab after .shstrtab": (
        ("x86_64-clang-lld",),
        lambda r: r.by_name[".strtab"]["sh_offset"] > r.by_name[".shstrtab"]["sh_offset"],
    ),
    "relocations between .strtab and .shstrtab": (
        ("x86_64-und-local",),
        lambda r: (
            r.by_name[".strtab"]["sh_offset"]
            < r.by_name[".rela.text"]["sh_offset"]
            < r.by_name[".shstrtab"]["sh_offset"]
        ),
    ),
}


@pytest.mark.parametrize(("name", "shape"), [(name, shape) for shape, (names, _) in SHAPES.items() for name in names])
def test_shape(corpus: dict[str, Item], name: str, shape: str) -> None:
    with reading(corpus[name].path) as found:
        assert SHAPES[shape][1](found)


def check_payload(item: Item) -> None:
    """The item is a payload as Xen requires it, and has the symbols that its sources define."""
    with reading(item.path) as found:
        assert found.elf["e_type"] == "ET_REL"
        assert found.elf["e_shnum"] < 1024
        assert found.elf["e_machine"] == E_MACHINE[item.spec.machine]
        for name in (".note.gnu.build-id", ".livepatch.depends", ".livepatch.xen_depends"):
            assert found.by_name[name]["sh_flags"] & SHF_ALLOC
            assert found.by_name[name]["sh_size"] == 36
        assert {".livepatch.funcs", ".livepatch.hooks.load"} & set(found.by_name)
        local, other = Counter[str](), Counter[str]()
        for symbol in found.symbols:
            (local if symbol.entry.st_info.bind == "STB_LOCAL" else other)[symbol.name] += 1
        expected = item.expected
        assert local >= Counter(expected.new_local + expected.signature)
        assert other >= Counter(expected.new_global)
        assert local + other >= Counter(expected.overriding)


@pytest.mark.parametrize("name", SPECS)
def test_payload(corpus: dict[str, Item], name: str) -> None:
    check_payload(corpus[name])


@pytest.mark.parametrize("name", fixtures())
def test_fixture(name: str) -> None:
    fixture = fixtures()[name]
    assert fixture.path.stat().st_size <= 10 << 10
    check_payload(fixture)


def test_fixtures_have_no_strays() -> None:
    assert sorted(path for path in toolchain.SOURCES.parent.glob("*.livepatch")) == sorted(
        fixture.path for fixture in fixtures().values()
    )


@pytest.mark.parametrize(
    ("tool", "package"),
    [
        ("clang", "clang"),
        ("ld.lld", "lld"),
        ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
        ("arm-linux-gnueabihf-objcopy", "binutils-arm-linux-gnueabihf"),
        ("readelf", "binutils"),
        ("qemu-arm-static", "qemu-user-static"),
    ],
)
def test_missing_tool_names_its_package(tool: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MissingTool, match=f"^{tool} is missing: apt-get install {package}"):
        find.__wrapped__(tool)
