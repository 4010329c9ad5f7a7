"""lpmangle show: what a payload is and does."""

import json
import shutil
import struct
from pathlib import Path

import pytest
import signing
from commands import EXAMPLES, lpmangle
from corpus import Item
from elfbuild import GLOBAL, TEXT, Sec, Sym, build, build_id, funcs, note
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from toolchain import run


@pytest.fixture
def example(tmp_path: Path) -> Path:
    return Path(shutil.copy(EXAMPLES / "fbab204.livepatch", tmp_path))


def show(*words: str | Path, code: int = 0) -> dict[str, object]:
    [found] = json.loads(lpmangle("show", "--json", *words, code=code).stdout)["payloads"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("name", ["x86_64-gcc-ld", "x86_64-clang-lld", "aarch64-gcc-ld", "arm-clang-ld", "x86_64-v1"])
def test_another_reader_agrees(corpus: dict[str, Item], name: str) -> None:
    """Compared with pyelftools; the corpus says which symbols are new."""
    item = corpus[name]
    found = show(item.path)
    with item.path.open("rb") as stream:
        view = ELFFile(stream)
        table = view.get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        symbols = [symbol for symbol in table.iter_symbols() if symbol.name]
        needed = {symbol.name for symbol in symbols if symbol["st_shndx"] == "SHN_UNDEF"}
        sizes = {(symbol.name, symbol["st_size"]) for symbol in symbols}
    assert {one["name"] for one in found["needs"]} == needed  # type: ignore[attr-defined]
    added = [(one["name"], one["size"]) for one in found["adds"]]  # type: ignore[attr-defined]
    assert added
    assert set(added) <= sizes
    assert found["machine"] == item.spec.machine
    assert found["version"] == item.spec.version
    functions = [entry["name"] for entry in found["functions"]]  # type: ignore[attr-defined]
    assert "x86_emulate_wrapper" in functions
    assert len(functions) == 6
    assert found["hooks"] == [{"kind": "load", "functions": ["lp_load"]}]
    assert found["trouble"] == []


def test_original_names(example: Path) -> None:
    """The names are the same with the manifest beside it, inside, or only the mark; --mangled shows the new ones."""
    before = show(example)
    lpmangle("--embed", example)
    by_manifest = show(example)
    assert by_manifest["names_from"] == "manifest"
    assert by_manifest["mangled"] == "--suffix buildid --template {symbol}_{suffix} --scope local"
    for one in (*by_manifest["adds"], *before["adds"]):  # type: ignore[misc]
        one.pop("new_name")
    assert by_manifest["adds"] == before["adds"]
    (example.parent / f"{example.name}.manifest.json").unlink()
    assert show(example)["names_from"] == "manifest"
    run("strip", "-g", example)  # takes the manifest out, and the mark
    assert show(example)["names_from"] == "file"
    assert "mangled   no" in lpmangle("show", example).stdout


def test_mark_alone(example: Path) -> None:
    lpmangle(example)
    (example.parent / f"{example.name}.manifest.json").unlink()
    found = show(example)
    assert found["names_from"] == "mark"
    assert "x86_emulate.c#_get_fpu" in [one["name"] for one in found["adds"]]  # type: ignore[attr-defined]
    suffix = found["suffix"]
    said = lpmangle("show", example).stdout
    assert "x86_emulate.c#_get_fpu  " in said
    assert f"x86_emulate.c#_get_fpu_{suffix}" not in said
    assert "no manifest was found, the original names are derived from the new ones" in said
    assert f"x86_emulate.c#_get_fpu_{suffix}" in lpmangle("show", "--mangled", example).stdout


def test_stacked(tmp_path: Path) -> None:
    """Names borrowed from the payload below are separate from those of the hypervisor."""
    for path in (*EXAMPLES.glob("*.livepatch"), *EXAMPLES.glob("stacked/*.livepatch")):
        shutil.copy(path, tmp_path)
    lpmangle("617712b.livepatch", cwd=tmp_path)
    lpmangle("--against", "617712b.livepatch", "8d4a1c7.livepatch", cwd=tmp_path)
    said = lpmangle("show", "8d4a1c7.livepatch", cwd=tmp_path).stdout
    below = said.partition("of payloads below, by the names that they have there")[2]
    assert "x86_emulate.c#get_fpu_calls" in below
    assert "lp_helper" in below
    assert "put on    the payload with build-id a46b5c175e2839ad0fcd31212d3715bde54b2c28" in said


def payload(table: bytes | None = None, name: bytes = b"f", **more: object) -> bytes:
    entry = funcs(1) if table is None else Sec(".livepatch.funcs", table)
    sections = [TEXT, entry, build_id(b"\x01" * 20), Sec(".livepatch.depends", note(b"\x02" * 20), type=7, align=4)]
    return build(sections, [Sym(name, ".text"), Sym(b"u", 0, bind=GLOBAL, type=0)]).data


def test_damaged_inside(tmp_path: Path) -> None:
    """Everything that can be read is shown."""
    path = tmp_path / "p.livepatch"
    path.write_bytes(payload(bytes(50)))
    said = lpmangle("show", path).stdout
    assert "needs 1 name of the hypervisor" in said
    assert "incomplete: .livepatch.funcs: " in said


def test_no_function_is_replaced_but_deleted(tmp_path: Path) -> None:
    data = bytearray(104)
    struct.pack_into("<QIIB", data, 16, 0xFFFF82D040200000, 5, 9, 2)
    path = tmp_path / "p.livepatch"
    path.write_bytes(payload(bytes(data)))
    found = show(path)
    assert found["functions"] == [
        {
            "name": "",
            "old_size": 9,
            "new_size": 5,
            "old_address": 0xFFFF82D040200000,
            "deleted": True,
            "expected": None,
        }
    ]
    assert "(at 0xffff82d040200000)         9         -  the first 5 bytes deleted" in lpmangle("show", path).stdout


def test_several_and_what_is_none(example: Path) -> None:
    """One that cannot be read is reported on stderr; the others are shown."""
    text = example.parent / "text"
    text.write_text("no elf\n")
    done = lpmangle("show", text, example, code=3)
    assert done.stderr == f"lpmangle: {text}: not an ELF file\n"
    assert "replaces 1 function" in done.stdout
    assert lpmangle("show", example.parent / "gone", code=2).stdout == ""


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "p.livepatch"
    path.write_bytes(payload(name=b"a\nb\x1b[31m"))
    said = lpmangle("show", path).stdout
    assert "a\\nb\\x1b[31m" in said
    assert "\x1b" not in said


def test_signed(example: Path) -> None:
    """By appended bytes, by a note, or not yet."""
    assert "  signed    no\n" in lpmangle("show", example).stdout
    with example.open("ab") as stream:
        stream.write(b"SIGNATURE\n")
    said = lpmangle("show", example).stdout
    assert "  signed    10 bytes that belong to no section (a signature?) follow\n" in said
    assert show(example)["signed"] == {"note": None, "appended": 10}
    shutil.copy(EXAMPLES / "fbab204.livepatch", example)
    signing.add_note(example, signing.note(bytes(signing.SIZE)))
    assert "  signed    not yet; there is space for a signature\n" in lpmangle("show", example).stdout
    signing.add_note(example, signing.note(b"\x01" * signing.SIZE), how="update")
    assert "  signed    .note.Xen.signature, RSA, SHA-256\n" in lpmangle("show", example).stdout


def test_manifest_of_another_payload(example: Path) -> None:
    """If it is beside the payload, it is left out and reported; if it was named, it is an error."""
    shutil.copy(EXAMPLES / "617712b.livepatch", example.parent)
    other = example.parent / "617712b.livepatch"
    lpmangle(other, example)
    manifest = f"{other}.manifest.json"
    lpmangle("show", example, "-m", manifest, code=3)
    shutil.copy(manifest, f"{example}.manifest.json")
    said = lpmangle("show", example).stdout
    assert "incomplete: the manifest that was found belongs to another payload: it has another build-id" in said
    assert "x86_emulate.c#_get_fpu  " in said
