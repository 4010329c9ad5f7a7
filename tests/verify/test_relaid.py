"""Payloads that objcopy rewrote to sign them: verified by their content, each difference named."""

from __future__ import annotations

import os
import random
import re
import shutil
import struct
import subprocess
from functools import cache
from pathlib import Path

import pytest
from builds import ROOT, run
from corpus import Item
from elfbuild import GLOBAL, TEXT, Sec, Sym, build, build_id, rela
from signing import SECTION, SIZE, add_note, note, sign
from stacked import ident, stacked, write
from toolchain import MACHINES

from lpmangle import elf
from lpmangle.errors import ElfError
from lpmangle.jobs.mangle import mangle_file
from lpmangle.jobs.restore import restore_file
from lpmangle.jobs.verify import verify_file
from lpmangle.mangle.options import Options
from lpmangle.manifest.read import decode
from lpmangle.verify.payload import verify_payload

EXAMPLE = ROOT / "examples" / "fbab204.livepatch"
SIGNED = "signed since (.note.Xen.signature, RSA, SHA-256)"
SIGNATURE = note(b"\x01" * SIZE)
TWO_TOOLS = pytest.mark.parametrize("tool", ["objcopy", "llvm-objcopy"])


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    path = Path(shutil.copy(EXAMPLE, tmp_path))
    mangle_file(str(path), Options())
    return path


def tool_of(name: str, tool: str) -> str:
    """The GNU objcopy of a payload's machine."""
    if tool != "objcopy":
        return tool
    machine = name.partition("-")[0]
    return MACHINES[machine].tool("objcopy")


@TWO_TOOLS
@pytest.mark.parametrize("embedded", [False, True])
def test_signed_in_the_right_order(payload: Path, tool: str, embedded: bool) -> None:
    """A blank note first, then what OpenSSL makes of the file in that state."""
    restore_file(str(payload))
    original = payload.read_bytes()
    mangle_file(str(payload), Options(embed=embedded))
    add_note(payload, note(bytes(SIZE)), tool)
    place = "has space for a signature since, not signed yet (.note.Xen.signature, RSA, SHA-256)"
    said = run(["lpmangle", "verify", str(payload)], ROOT).stdout
    assert said == f"{payload}: verified, 5 renamed symbols, nothing else differs; {place}\n"
    restore_file(str(payload))
    mangle_file(str(payload), Options(embed=embedded))
    sign(payload, tool)
    for options in ([], ["--original", str(EXAMPLE)]):
        said = run(["lpmangle", "verify", *options, str(payload)], ROOT).stdout
        assert said == f"{payload}: verified, 5 renamed symbols, nothing else differs; {SIGNED}\n"
    done = run(["lpmangle", str(payload)], ROOT)
    assert "already mangled" in done.stdout
    assert done.stderr == ""
    restore_file(str(payload))
    assert payload.read_bytes() == original


@TWO_TOOLS
def test_the_corpus(corpus: dict[str, Item], tmp_path: Path, tool: str) -> None:
    """Every machine, compiler and linker: the content is the same, and the original is recovered."""
    for name, item in corpus.items():
        path = Path(shutil.copy(item.path, tmp_path))
        if tool == "objcopy" and name.startswith("armeb"):
            continue
        mangle_file(str(path), Options("text:SUF", scope="new"))
        add_note(path, note(b"\x01" * SIZE, order=MACHINES[item.spec.machine].byte_order), tool_of(name, tool))
        done = verify_file(str(path))
        assert (name, done.findings, done.since) == (name, [], SIGNED)
        restore_file(str(path))
        assert path.read_bytes() == item.path.read_bytes(), name


def test_a_note_that_was_there_before(payload: Path) -> None:
    """The note was blank when the payload was mangled, and is filled in: by objcopy, or in place."""
    restore_file(str(payload))
    add_note(payload, note(bytes(SIZE)))
    original = payload.read_bytes()
    mangle_file(str(payload), Options())
    assert verify_file(str(payload)) == verify_file(str(payload))._replace(findings=[], since="")
    mangled = payload.read_bytes()
    for in_place in (False, True):
        payload.write_bytes(mangled)
        if in_place:
            section = elf.parse(mangled).section_named(SECTION)
            assert section
            payload.write_bytes(mangled[: section.offset] + SIGNATURE + mangled[section.end :])
        else:
            add_note(payload, SIGNATURE, how="update")
        done = verify_file(str(payload))
        assert (done.findings, done.since) == ([], SIGNED)
        restore_file(str(payload))
        assert payload.read_bytes() == original


def test_signed_before(payload: Path) -> None:
    restore_file(str(payload))
    add_note(payload, SIGNATURE)
    mangle_file(str(payload), Options(force=True))
    done = verify_file(str(payload))
    assert done.findings == []
    assert done.since == "signed before; the signature is no longer valid (.note.Xen.signature, RSA, SHA-256)"


def test_a_malformed_note(payload: Path) -> None:
    add_note(payload, note(b"\x01" * SIZE, 9))
    assert ".note.Xen.signature, malformed: version 9 is not known, only 1" in verify_file(str(payload)).findings


def test_a_note_that_is_code(payload: Path) -> None:
    """A section with the name of the signature hides nothing else."""
    add_note(payload, SIGNATURE)
    subprocess.run(["objcopy", f"--set-section-flags={SECTION}=alloc,readonly,code", payload], check=True)
    said = "section changed: .note.Xen.signature: is loaded as code or data, and so is not a note"
    assert said in verify_file(str(payload)).findings


@pytest.mark.parametrize("kind", [3, 4, 9, 11, 17])
def test_a_note_of_another_type(payload: Path, kind: int) -> None:
    """Xen looks at the type, not at the name: relocations would be applied."""
    add_note(payload, SIGNATURE)
    data = bytearray(payload.read_bytes())
    number = [section.name for section in elf.parse(bytes(data)).sections].index(SECTION)
    (headers,) = struct.unpack_from("<Q", data, 0x28)  # e_shoff
    struct.pack_into("<I", data, headers + 64 * number + 4, kind)
    payload.write_bytes(data)
    said = f"section changed: .note.Xen.signature: is of type {kind}, and so is not a note"
    assert said in verify_file(str(payload)).findings


def test_a_second_section_for_the_manifest(tmp_path: Path) -> None:
    """A section with the name of the embedded manifest hides nothing else."""
    payload = Path(shutil.copy(ROOT / "examples" / "fbab204.livepatch", tmp_path))
    run(["lpmangle", "--embed", payload.name], tmp_path)
    (tmp_path / "code").write_bytes(b"\x90" * 32)
    added = ["--add-section", f".new={tmp_path / 'code'}", "--set-section-flags", ".new=alloc,code"]
    subprocess.run(["objcopy", *added, payload], check=True)
    subprocess.run(["objcopy", "--rename-section", ".new=.debug_lpmangle", payload], check=True)
    said = "section added: .debug_lpmangle: there are 2 of that name"
    assert said in verify_file(str(payload), f"{payload}.manifest.json").findings


@cache
def twins() -> bytes:
    """Two LOCAL f, and code that calls the first of them; two sections of one name."""
    text = Sec(".text", bytes(range(64)), TEXT.flags, align=16)
    other = Sec(".text", bytes(32), TEXT.flags, align=16)
    calls = rela(".text", [(4, 1, 4, -4), (12, 2, 4, -4), (20, 3, 2, 8)])
    debug = [Sec(".debug_info", bytes(16), 0), rela(".debug_info", [(0, 2, 1, 0), (8, 1, 1, 0)])]
    symbols = [Sym(b"f", value=8), Sym(b"f", value=32), Sym(b"x", 0, GLOBAL, size=0, type=0), Sym(b"g", bind=GLOBAL)]
    return build([text, build_id(), other, calls, *debug], symbols).data


@pytest.fixture
def twin(tmp_path: Path) -> Path:
    path = tmp_path / "twins.livepatch"
    path.write_bytes(twins())
    mangle_file(str(path), Options())
    add_note(path, SIGNATURE)
    assert (verify_file(str(path)).findings, verify_file(str(path)).since) == ([], SIGNED)
    return path


def edit(path: Path, at: int, data: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)


def named(path: Path) -> list[str]:
    """What is named; the same with the original, where the byte is named, too."""
    done = verify_file(str(path))
    assert done.findings[0].startswith("sha256 is ")
    return done.findings[2:]


def test_a_byte_of_code(twin: Path) -> None:
    view = elf.parse(twin.read_bytes())
    section = view.section_named(".text")
    assert section
    edit(twin, section.offset + 5, b"\xcc")
    assert named(twin) == ["section changed: .text"]
    original = twin.with_name("original")
    original.write_bytes(twins())
    said = verify_file(str(twin), original=str(original)).findings
    assert said[-1] == "section changed: .text: 1 byte differs, the first at .text+0x5"
    done = run(["lpmangle", "restore", str(twin)], ROOT, code=3)
    assert "is not what lpmangle wrote: it was changed since, in section .text" in done.stderr


def test_a_relocation_turned_to_another_symbol_of_equal_name(twin: Path) -> None:
    """In loaded code, and in debug information, whose relocations the manifest does not have."""
    view = elf.parse(twin.read_bytes())
    for name, said in (
        (".rela.text", "relocation changed: .text+0x4 means f_"),
        (".rela.debug_info", "section changed"),
    ):
        section = view.section_named(name)
        assert section
        before = twin.read_bytes()
        first = 1 if name == ".rela.text" else 2
        edit(twin, section.offset + 12, struct.pack("<I", 3 - first))
        lines = named(twin)
        assert len(lines) == 1
        assert lines[0].startswith(said)
        if name == ".rela.text":
            suffix = "_" + "ab" * 20
            assert (
                f"means f{suffix} (.text+0x20) - 0x4, type 4; it meant f{suffix} (.text+0x8) - 0x4, type 4" in lines[0]
            )
        twin.write_bytes(before)


def test_symbols(twin: Path) -> None:
    suffix = "_" + "ab" * 20
    before = twin.read_bytes()
    subprocess.run(["objcopy", "--strip-symbol=g", twin], check=True)
    assert named(twin) == ["symbol gone: g (.text+0x0)"]
    twin.write_bytes(before)
    subprocess.run(["objcopy", "--add-symbol=h=.text:4,local", twin], check=True)
    assert named(twin) == ["symbol added: h (.text+0x4)"]
    twin.write_bytes(before)
    subprocess.run(["objcopy", "--localize-symbol=g", twin], check=True)
    assert named(twin) == ["symbol changed: g: binding is LOCAL, it was GLOBAL"]
    twin.write_bytes(before)
    view = elf.parse(before)
    one, two = (before[view.symbol_offset(index) : view.symbol_offset(index + 1)] for index in (1, 2))
    edit(twin, view.symbol_offset(1), two + one)
    lines = named(twin)
    assert f"symbols of one name are in another order: f{suffix}" in lines
    assert any(line.startswith("relocation changed: .text+0x4 means f_") for line in lines)


def test_sections_and_header(twin: Path) -> None:
    before = twin.read_bytes()
    other = twin.with_name("other")
    other.write_bytes(b"x")
    subprocess.run(["objcopy", f"--add-section=.vendor={other}", twin], check=True)
    assert named(twin) == ["section added: .vendor"]
    twin.write_bytes(before)
    subprocess.run(["objcopy", "--remove-section=.debug_info", twin], check=True)
    assert "section gone: .debug_info" in named(twin)
    twin.write_bytes(before)
    subprocess.run(["objcopy", "--set-section-alignment", ".text=32", twin], check=True)
    assert "section changed: .text: sh_addralign is 0x20, it was 0x10" in named(twin)
    twin.write_bytes(before)
    edit(twin, 48, b"\x07")
    assert "the ELF header's e_flags is 0x7, it was 0x0" in named(twin)


def test_names_from_payloads_below(tmp_path: Path) -> None:
    """Names of functions to replace are in a section that grew, and in its relocations."""
    lower = stacked(1, ident(9), new=["a.c#helper", "a.c#handler"])
    upper = stacked(2, ident(1), new=["b.c#own"], undefined=["a.c#helper"], replaces=["a.c#handler"])
    a, b = write(tmp_path, a=lower, b=upper)
    original = b.read_bytes()
    run(["lpmangle", str(a)], tmp_path)
    run(["lpmangle", "--against", str(a), str(b)], tmp_path)
    add_note(a, SIGNATURE)
    add_note(b, SIGNATURE)
    assert verify_file(str(a)).since == verify_file(str(b)).since == SIGNED
    data, name = b.read_bytes(), b"a.c#handler_" + ident(1).hex().encode()
    b.write_bytes(data.replace(name, name.replace(b"handler", b"hindler")))
    assert verify_file(str(b)).findings
    b.write_bytes(data)
    restore_file(str(b))
    assert b.read_bytes() == original
    # Another payload is put on the signed one.
    run(["lpmangle", "--against", str(a), str(b)], tmp_path)
    assert verify_file(str(b)).verified


def test_random_changes_are_all_found(tmp_path: Path, corpus: dict[str, Item]) -> None:
    """Any meaningful byte: sections, symbols without the offsets of their names, relocations, header."""
    seed = int(os.environ.get("LPMANGLE_SEED", "20261127"))
    rng = random.Random(seed)
    print(f"LPMANGLE_SEED={seed}")
    for name in ("x86_64-gcc-ld", "arm-gcc-ld", "x86_64-clang-lld-g", "x86_64-group"):
        path = Path(shutil.copy(corpus[name].path, tmp_path))
        mangle_file(str(path), Options("text:SUF"))
        found = decode(Path(f"{path}.manifest.json").read_bytes())
        add_note(path, SIGNATURE, tool_of(name, rng.choice(["objcopy", "llvm-objcopy"])))
        good = path.read_bytes()
        view = elf.parse(good)
        assert not verify_payload(good, found, path.stem).findings
        for _ in range(60):
            changed, what = damaged(view, rng)
            try:
                done = verify_payload(changed, found, path.stem)
            except ElfError:
                continue
            assert done.findings, (seed, name, what)


def damaged(view: elf.Object, rng: random.Random) -> tuple[bytes, str]:
    """The file with one meaningful bit inverted."""
    data = bytearray(view.data)
    tables = (view.strtab.number, view.section_names.number)
    sections = [
        section
        for section in view.sections[1:]
        if section.end > section.offset and section.number not in tables and section.name != SECTION
    ]
    section = rng.choice(sections)
    if rng.random() < 0.3 and section is not view.symtab:
        # In a section header everything except sh_offset: the other fields have a meaning, or are 0.
        places = [*range(24), *range(32, 64)] if view.layout.is_64 else [*range(16), *range(20, 40)]
        field = rng.choice(places)
        data[view.section_header_offset(section.number) + field] ^= 1 << rng.randrange(8)
        return bytes(data), f"{section} header {field}"
    at = rng.randrange(section.offset, section.end)
    what = f"{section} {at - section.offset:#x}"
    if section is view.symtab:
        entry = (at - section.offset) // view.layout.sym.size
        if entry == 0:
            return damaged(view, rng)
    data[at] ^= 1 << rng.randrange(8)
    return bytes(data), what


def test_a_manifest_without_a_frame(payload: Path) -> None:
    """As lpmangle 0.1 wrote them: only names can be compared, the message says so, and nothing is verified."""
    manifest = Path(f"{payload}.manifest.json")
    text = re.sub(r',\n  "frame": "[^"]*"', "", manifest.read_text())
    assert "frame" not in text
    manifest.write_text(text)
    assert verify_file(str(payload)).verified
    sign(payload)
    said = run(["lpmangle", "verify", str(payload)], ROOT, code=1).stdout
    assert "since then: 5 of 5 renamed symbols are there, 0 of them at another index" in said
    assert "nothing more can be checked without the original: its manifest has no frame (" in said
    done = run(["lpmangle", "restore", str(payload)], ROOT, code=3)
    assert "it was rewritten since (by a signer, objcopy or strip), and its manifest has no frame" in done.stderr
    said = run(["lpmangle", "verify", "--original", str(EXAMPLE), str(payload)], ROOT).stdout
    assert said == f"{payload}: verified, 5 renamed symbols, nothing else differs; {SIGNED}\n"
