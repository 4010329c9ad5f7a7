"""Things done in the wrong order: signed before, changed after. Detected, named, and as much told as can be."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from builds import ROOT, names, run
from corpus import Item
from elfbuild import plain

from lpmangle import elf
from lpmangle.elf import appended as tail

EXAMPLE = ROOT / "examples" / "fbab204.livepatch"
# As scripts/sign-file of Linux appends it: PKCS#7 in DER, struct module_signature, the mark.
SIGNATURE = b"\x30\x82\x01\x02" + bytes(range(200)) + bytes(8) + b"\0\0\0\xcc" + b"~Module signature appended~\n"


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    return Path(shutil.copy(EXAMPLE, tmp_path / "p.livepatch"))


def lpmangle(*words: str | Path, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    return run(["lpmangle", *map(str, words)], cwd, code=code)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


@pytest.mark.parametrize("data", [SIGNATURE, b"x", bytes(100) + b"\x01", b"\x01" + bytes(5000)])
def test_something_appended_is_refused(payload: Path, data: bytes) -> None:
    append(payload, data)
    before = payload.read_bytes()
    done = lpmangle(payload.name, cwd=payload.parent, code=3)
    words = "of a signature" if data == SIGNATURE else "that belong to no section (a signature?)"
    assert done.stderr.startswith(f"lpmangle: p.livepatch: {len(data)} bytes {words} follow its last section\n  hint: ")
    assert payload.read_bytes() == before
    assert list(payload.parent.iterdir()) == [payload]
    lpmangle("--dry-run", payload.name, cwd=payload.parent, code=3)

    done = lpmangle("--force", payload.name, cwd=payload.parent)
    assert f"warning: {len(data)} bytes {words} stay as they were; a signature fits no longer" in done.stderr
    assert data in payload.read_bytes()
    assert "already mangled" in lpmangle(payload.name, cwd=payload.parent).stdout
    lpmangle("verify", payload.name, cwd=payload.parent)
    lpmangle("restore", payload.name, cwd=payload.parent)
    assert payload.read_bytes() == before


@pytest.mark.parametrize("size", [1, 7, 4096, 100_000])
def test_padding_is_no_signature(payload: Path, size: int) -> None:
    append(payload, bytes(size))
    assert lpmangle(payload.name, cwd=payload.parent).stderr == ""


def test_no_tool_leaves_a_tail(corpus: dict[str, Item], tmp_path: Path) -> None:
    """Compilers, linkers, objcopy, strip and lpmangle itself: whatever they write ends with a section or a table."""
    for item in corpus.values():
        assert tail.size(elf.parse(item.path.read_bytes())) == 0, item.name
        copy = tmp_path / f"{item.name}.livepatch"
        shutil.copy(item.path, copy)
    lpmangle("-j2", *(f"{name}.livepatch" for name in corpus), cwd=tmp_path)
    for name in corpus:
        assert tail.size(elf.parse((tmp_path / f"{name}.livepatch").read_bytes())) == 0, name
    x86 = tmp_path / "x86_64-gcc-ld-g.livepatch"
    for command in (["strip", "-g"], ["objcopy", "--strip-unneeded"], ["llvm-objcopy"], ["llvm-strip", "-g"]):
        copy = Path(shutil.copy(x86, tmp_path / "copy"))
        subprocess.run([*command, copy], check=True)
        assert tail.size(elf.parse(copy.read_bytes())) == 0, command


def test_tail_counts_every_byte() -> None:
    data = plain().data
    for appended in range(1, 40):
        assert tail.size(elf.parse(data + b"\x01" * appended)) == appended


def test_signed_afterwards(payload: Path) -> None:
    """The right order: it verifies as it is, and the way back asks for the file without the signature."""
    lpmangle(payload.name, cwd=payload.parent)
    mangled = payload.read_bytes()
    append(payload, SIGNATURE)
    done = lpmangle("verify", payload.name, "--original", EXAMPLE, cwd=payload.parent)
    assert f"{len(SIGNATURE)} bytes of a signature were appended since; without them:\n" in done.stdout
    assert "verified, 5 renamed symbols" in done.stdout
    report = json.loads(lpmangle("verify", "--json", payload.name, cwd=payload.parent).stdout)
    assert (report["verified"], report["appended_bytes"]) == (True, len(SIGNATURE))
    assert "already mangled" in lpmangle(payload.name, cwd=payload.parent).stdout
    assert payload.read_bytes() == mangled + SIGNATURE
    lpmangle("restore", payload.name, cwd=payload.parent, code=3)
    damaged = bytearray(payload.read_bytes())
    damaged[damaged.index(b"_get_fpu_")] ^= 1
    payload.write_bytes(damaged)
    done = lpmangle("verify", payload.name, cwd=payload.parent, code=1)
    assert "sha256 is" in done.stdout


@pytest.mark.parametrize("command", [["objcopy"], ["strip", "-g"], ["llvm-objcopy"]], ids=" ".join)
def test_rewritten_afterwards(payload: Path, command: list[str]) -> None:
    """The tool keeps all symbols: verify finds them by name."""
    lpmangle(payload.name, cwd=payload.parent)
    subprocess.run([*command, payload], check=True)
    lines = lpmangle("verify", payload.name, cwd=payload.parent, code=1).stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("p.livepatch: sha256 is ")
    assert "objcopy, strip" in lines[0]
    assert lines[1].startswith("p.livepatch: since then: 5 of 5 renamed symbols are there, ")


def test_what_a_tool_took_and_added(payload: Path, tmp_path: Path) -> None:
    lpmangle("--suffix", "name", payload.name, cwd=tmp_path)
    (tmp_path / "note").write_bytes(b"note")
    options = [
        *("--strip-symbol=x86_emulate.c", "--remove-section=.comment", "--add-section=.vendor=note"),
        "--redefine-sym=lp_helper_p=lp_helper",
        "--globalize-symbol=x86_emulate.c#_put_fpu_p",
        "--rename-section=.data=.data2",
    ]
    subprocess.run(["objcopy", *options, payload], check=True, cwd=tmp_path)
    done = lpmangle("verify", payload.name, "--original", EXAMPLE, cwd=tmp_path, code=1)
    said = [line.removeprefix("p.livepatch: ") for line in done.stdout.splitlines()]
    assert said[1].startswith("since then: 4 of 5 renamed symbols are there, ")
    assert "gone: lp_helper_p is called lp_helper again" in said
    assert "changed: x86_emulate.c#_put_fpu_p: binding is GLOBAL, the manifest says LOCAL" in said
    assert "changed: x86_emulate.c#extra_version_p: section is .data2, the manifest says .data" in said
    assert "section gone: .data" in said
    assert {"section added: .vendor", "section added: .data2"} <= set(said)
    assert not [line for line in said if line.startswith("section changed")]
    assert "x86_emulate.c#_get_fpu_p" in names(payload)


def test_a_changed_section(payload: Path, tmp_path: Path) -> None:
    lpmangle(payload.name, cwd=tmp_path)
    (tmp_path / "text").write_bytes(b"\x90" * 100)
    subprocess.run(["objcopy", "--update-section", ".text=text", payload], check=True, cwd=tmp_path)
    done = lpmangle("verify", payload.name, "--original", EXAMPLE, cwd=tmp_path, code=1)
    assert "section changed: .text\n" in done.stdout
    assert "5 of 5 renamed symbols" in done.stdout


def test_all_symbols_gone(payload: Path, tmp_path: Path) -> None:
    """What nothing refers to goes with strip --strip-unneeded; another payload has none of ours."""
    lpmangle(payload.name, cwd=tmp_path)
    manifest = f"{payload}.manifest.json"
    subprocess.run(["strip", "--strip-unneeded", payload], check=True)
    said = lpmangle("verify", payload.name, cwd=tmp_path, code=1).stdout
    assert "since then: " in said
    other = ROOT / "examples" / "617712b.livepatch"
    said = lpmangle("verify", other, "-m", manifest, cwd=tmp_path, code=1).stdout
    assert "build-id is a46b5c175e2839ad0fcd31212d3715bde54b2c28, the manifest says" in said
    assert "since then: 0 of 5 renamed symbols are there" in said
    assert (
        "gone: x86_emulate.c#_get_fpu_d967c17f6518371e26e591728fd30fa3f292977c is called x86_emulate.c#_get_fpu again"
        in said
    )
