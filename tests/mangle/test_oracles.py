"""Other tools read every payload of the corpus before and after lpmangle.

None of these tests asks lpmangle what it did: names before and after are read with pyelftools.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import ROOT, lpmangle
from corpus import SPECS, Item
from elftools.elf.elffile import ELFFile
from readers import (
    Row,
    by_lief,
    by_lpmangle,
    by_pyelftools,
    read_build_id,
    read_names,
    symbol_table,
)
from toolchain import MACHINES, run, run_program

NAME = "payload.livepatch"  # the same before and after: tools print it

# What these linkers take neither before nor after, or take since a newer version: LOCAL undefined symbols, big-endian
# SHT_REL.
REFUSED = {("ld", "aarch64-und-local"), ("ld", "arm-und-local"), ("ld.lld", "armeb-clang-c")}


@dataclass(frozen=True)
class Mangled:
    """A payload before and after, and the names that differ."""

    item: Item
    before: Path
    after: Path
    strtab: int  # index of the string table's section
    renames: tuple[tuple[str, str], ...]  # old, new; in table order

    def original(self, text: str) -> str:
        """The text with old names in place of new ones, and without column padding."""
        if self.renames:
            old = {new: old for old, new in self.renames}
            longest_first = sorted(old, key=len, reverse=True)
            text = re.sub("|".join(map(re.escape, longest_first)), lambda m: old[m[0]], text)
        return squeeze(text)


def squeeze(text: str) -> str:
    return "\n".join(" ".join(line.split()) for line in text.splitlines())


def lpmangle_command(*arguments: str | Path) -> str:
    return lpmangle(*arguments, cwd=ROOT).stderr


Mangle = Callable[[Item, str], Mangled]


@pytest.fixture(scope="session")
def mangle(tmp_path_factory: pytest.TempPathFactory) -> Mangle:
    """Mangles an item under a scope, once for all tests."""
    done: dict[tuple[str, str], Mangled] = {}

    def mangle(item: Item, scope: str) -> Mangled:
        if (item.name, scope) not in done:
            folder = tmp_path_factory.mktemp(f"{item.name}-{scope}-")
            before, after = folder / "before" / NAME, folder / "after" / NAME
            before.parent.mkdir()
            after.parent.mkdir()
            shutil.copyfile(item.path, before)
            lpmangle_command("--suffix", "buildid", "--scope", scope, "-o", after, before)
            done[item.name, scope] = compare(item, before, after)
        return done[item.name, scope]

    return mangle


def compare(item: Item, before: Path, after: Path) -> Mangled:
    with before.open("rb") as file:
        strtab = symbol_table(ELFFile(file))["sh_link"]
    pairs = zip(read_names(before), read_names(after), strict=True)
    return Mangled(item, before, after, strtab, tuple((a, b) for a, b in pairs if a != b))


@pytest.fixture(params=SPECS)
def item(request: pytest.FixtureRequest, corpus: dict[str, Item]) -> Item:
    return corpus[request.param]


@pytest.fixture
def mangled(item: Item, mangle: Mangle) -> Mangled:
    """With as many changed names as possible."""
    return mangle(item, "new")


# What is renamed


@pytest.mark.parametrize("scope", ["local", "new"])
def test_renamed_are_exactly_the_new_symbols(item: Item, mangle: Mangle, scope: str) -> None:
    mangled = mangle(item, scope)
    expected = item.expected.new_local + item.expected.new_global * (scope == "new")
    assert Counter(old for old, _ in mangled.renames) == Counter(expected)
    suffix = f"_{read_build_id(item.path)}"
    for old, new in mangled.renames:
        if len(old) + len(suffix) <= 126:
            assert new == old + suffix
        else:
            assert len(new) <= 126
            assert new.endswith(suffix)
            assert new.startswith("long.c#of_")
    assert len(set(mangled.renames)) == len({new for _, new in mangled.renames})


@pytest.mark.parametrize("scope", ["local", "new"])
def test_restore_gives_the_original(item: Item, mangle: Mangle, scope: str, tmp_path: Path) -> None:
    mangled = mangle(item, scope)
    lpmangle_command("restore", mangled.after, "-o", tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == mangled.before.read_bytes()
    assert mangled.after.read_bytes() != mangled.before.read_bytes()


# What other readers see


def readelf(mangled: Mangled) -> tuple[str, str]:
    """The output of readelf for both, without the place of the string table."""
    row = rf"^( *\[ *{mangled.strtab}\] \S+ +STRTAB +\S+) \S+ \S+ "
    texts = []
    for path in (mangled.before, mangled.after):
        text = run("readelf", "-aW", NAME, cwd=path.parent)
        text, rows = re.subn(row, r"\1 ", text, flags=re.MULTILINE)
        assert rows == 1
        texts.append(text)
    return squeeze(texts[0]), mangled.original(texts[1])


def test_readelf_sees_new_names_only(mangled: Mangled) -> None:
    before, after = readelf(mangled)
    assert after == before


def disassembly(mangled: Mangled) -> tuple[str, str]:
    objdump = MACHINES[mangled.item.spec.machine].tool("objdump")
    command = (objdump, "-drz", "--no-show-raw-insn", NAME)
    before, after = (run(*command, cwd=x.parent) for x in (mangled.before, mangled.after))
    return squeeze(before), mangled.original(after)


def test_disassembly_sees_new_names_only(mangled: Mangled) -> None:
    before, after = disassembly(mangled)
    assert after == before


@pytest.mark.parametrize("state", ["before", "after"])
def test_readers_agree(mangled: Mangled, state: str) -> None:
    path = mangled.before if state == "before" else mangled.after
    data = path.read_bytes()
    symbols, sections = by_lpmangle(data)
    assert (symbols, sections) == by_pyelftools(data, path)
    lief_symbols, lief_sections = by_lief(path)
    assert [(name, *fields) for name, _st_name, *fields in symbols] == lief_symbols
    assert sections == lief_sections


# Linkers and processors


def relink(linker: str, payload: Path, machine: str, output: Path) -> list[Row] | str:
    """The symbols after `ld -r`, each with its section's name; or the linker's error."""
    target = MACHINES[machine]
    own = target.ld if linker == "ld" else ()
    command = target.tool("ld") if linker == "ld" else "ld.lld"
    try:
        run(command, *own, "-r", NAME, "-o", output, cwd=payload.parent)
    except RuntimeError as error:
        return str(error)
    with output.open("rb") as file:
        elf = ELFFile(file)
        rows: list[Row] = []
        for symbol in symbol_table(elf).iter_symbols():
            s = symbol.entry
            section = elf.get_section(s.st_shndx).name if isinstance(s.st_shndx, int) else s.st_shndx
            rows.append((symbol.name, section, s.st_info, s.st_value, s.st_size))
    return rows


@pytest.mark.parametrize("linker", ["ld", "ld.lld"])
def test_links_again_with_the_new_names(mangled: Mangled, linker: str, tmp_path: Path) -> None:
    machine, output = mangled.item.spec.machine, tmp_path / "relinked.o"
    before = relink(linker, mangled.before, machine, output)
    after = relink(linker, mangled.after, machine, output)
    assert isinstance(before, str) == isinstance(after, str)
    if isinstance(before, str) or isinstance(after, str):
        assert (linker, mangled.item.name) in REFUSED
        return
    new = [name for name, *_ in after]
    assert Counter(name for _, name in mangled.renames) <= Counter(new)
    # The linker may sort by name.
    mapped = [(mangled.original(str(name)), *fields) for name, *fields in after]
    assert sorted(map(repr, mapped)) == sorted(map(repr, (tuple(row) for row in before)))


@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if spec.runs])
def test_program_prints_the_same(corpus: dict[str, Item], mangle: Mangle, name: str, tmp_path: Path) -> None:
    mangled = mangle(corpus[name], "new")
    before, after = (run_program(mangled.item.spec.machine, x, tmp_path) for x in (mangled.before, mangled.after))
    assert after == before
    entries = re.findall(r"^(\S+)\(2\) = ", after, re.MULTILINE)
    overriding = {x for x in mangled.item.expected.overriding if not x.endswith("_alias")}
    assert set(entries) == overriding
    assert "\n" in after
    assert not any(new in after for _, new in mangled.renames)


# The oracles above do notice differences


def corrupt_symbol(data: bytearray, path: Path, name: str, at: int) -> None:
    """Add one to a byte of a symbol's entry."""
    with path.open("rb") as file:
        table = symbol_table(ELFFile(file))
        index = next(i for i, s in enumerate(table.iter_symbols()) if s.name.startswith(name))
        data[table["sh_offset"] + index * table["sh_entsize"] + at] += 1


def corrupt_section(data: bytearray, path: Path, name: str, at: int) -> None:
    """Add one to a byte of a section's contents."""
    with path.open("rb") as file:
        section = ELFFile(file).get_section_by_name(name)
        assert section is not None
        data[section["sh_offset"] + at] += 1


Corrupt = Callable[[bytearray, Path, str, int], None]


@pytest.mark.parametrize(
    ("corrupt", "name", "at", "oracle"),
    [
        pytest.param(corrupt_symbol, "lp_helper_", 4, readelf, id="st_info"),
        pytest.param(corrupt_symbol, "lp_helper_", 6, readelf, id="st_shndx"),
        pytest.param(corrupt_symbol, "lp_helper_", 8, readelf, id="st_value"),
        pytest.param(corrupt_symbol, "lp_helper_", 16, readelf, id="st_size"),
        pytest.param(corrupt_symbol, "hv_print", 0, readelf, id="name that stays"),
        pytest.param(corrupt_section, ".rela.text", 12, readelf, id="symbol of a relocation"),
        pytest.param(corrupt_section, ".rela.text", 16, disassembly, id="addend"),
        pytest.param(corrupt_section, ".text", 1, disassembly, id="instruction"),
        pytest.param(corrupt_symbol, "lp_helper_", 8, disassembly, id="function moved"),
    ],
)
def test_oracle_notices(
    corpus: dict[str, Item],
    mangle: Mangle,
    tmp_path: Path,
    corrupt: Corrupt,
    name: str,
    at: int,
    oracle: Callable[[Mangled], tuple[str, str]],
) -> None:
    mangled = mangle(corpus["x86_64-gcc-ld"], "new")
    data = bytearray(mangled.after.read_bytes())
    corrupt(data, mangled.after, name, at)
    damaged = tmp_path / NAME
    damaged.write_bytes(data)
    names = (mangled.item, mangled.before, damaged, mangled.strtab, mangled.renames)
    before, after = oracle(Mangled(*names))
    assert after != before
