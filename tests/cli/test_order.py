"""Steps in the wrong order: signed before, or changed after mangling. This is detected and explained."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from builds import ROOT, run
from corpus import Item
from elfbuild import plain
from signing import SIZE, add_note, note, older

from lpmangle import elf
from lpmangle.elf import appended as tail
from lpmangle.elf.appended import describe

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
    said = describe(data, len(data), "follows its last section", "follow its last section")
    assert done.stderr.startswith(f"lpmangle: p.livepatch: {said}\n  hint: ")
    assert payload.read_bytes() == before
    assert list(payload.parent.iterdir()) == [payload]
    lpmangle("--dry-run", payload.name, cwd=payload.parent, code=3)

    done = lpmangle("--force", payload.name, cwd=payload.parent)
    said = describe(data, len(data), "stays as it was", "stay as they were")
    assert f"warning: {said}; the signature is no longer valid" in done.stderr
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
    """The files that compilers, linkers, objcopy, strip and lpmangle write end with a section or a table."""
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
    """The right order: the payload does not change, and restore gives the original, without a signature."""
    lpmangle(payload.name, cwd=payload.parent)
    mangled = payload.read_bytes()
    append(payload, SIGNATURE)
    assert "already mangled" in lpmangle(payload.name, cwd=payload.parent).stdout
    assert payload.read_bytes() == mangled + SIGNATURE
    lpmangle("restore", payload.name, cwd=payload.parent)
    assert payload.read_bytes() == EXAMPLE.read_bytes()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (note(b"\x01" * SIZE), ".note.Xen.signature, RSA, SHA-256"),
        (older(b"\x01" * SIZE), ".note.Xen.signature, RSA, SHA-256, older form"),
        (note(b"\x01" * SIZE, 7), ".note.Xen.signature, malformed: version 7 is not known, only 1"),
    ],
)
def test_a_note_with_a_signature_is_refused(payload: Path, content: bytes, said: str) -> None:
    add_note(payload, content)
    before = payload.read_bytes()
    for words in ([payload.name], ["--dry-run", payload.name], [payload.name, EXAMPLE, "-o", "."]):
        done = lpmangle(*words, cwd=payload.parent, code=3)
        assert f"lpmangle: p.livepatch: is signed ({said})\n  hint: mangle first, then sign the result" in done.stderr
    assert payload.read_bytes() == before
    done = lpmangle("build", "--result", payload.name, "--", "true", cwd=payload.parent, code=3)
    assert f"is signed ({said})" in done.stderr
    done = lpmangle("--force", payload.name, cwd=payload.parent)
    assert f"warning: its signature ({said}) stays as it was, and is no longer valid\n" in done.stderr
    done = lpmangle("--force", payload.name, cwd=payload.parent)
    assert done.stderr == ""
    assert "already mangled" in done.stdout
    lpmangle("restore", payload.name, cwd=payload.parent)
    assert payload.read_bytes() == before


def test_both_kinds_of_signature(payload: Path) -> None:
    """Both are named if they become invalid."""
    add_note(payload, note(b"\x01" * SIZE))
    append(payload, SIGNATURE)
    done = lpmangle("--force", payload.name, cwd=payload.parent)
    assert "its signature (.note.Xen.signature, RSA, SHA-256) stays as it was" in done.stderr
    assert "bytes of a signature stay as they were" in done.stderr


def test_a_blank_note_is_no_signature(payload: Path) -> None:
    add_note(payload, note(bytes(SIZE)))
    assert lpmangle(payload.name, cwd=payload.parent).stderr == ""


@pytest.mark.parametrize("how", ["note", "appended"])
def test_signed_and_then_mangled_in_another_way(payload: Path, how: str) -> None:
    """The original could be recovered, but without the signature: that needs --force."""
    lpmangle(payload.name, cwd=payload.parent)
    if how == "note":
        add_note(payload, note(b"\x01" * SIZE))
    else:
        append(payload, SIGNATURE)
    before = payload.read_bytes()
    for options in (["--suffix", "text:OTHER"], ["--embed"]):
        done = lpmangle(*options, payload.name, cwd=payload.parent, code=3)
        assert "is signed" in done.stderr or "bytes of a signature follow its last section" in done.stderr
        assert payload.read_bytes() == before
    done = lpmangle("--force", "--suffix", "text:OTHER", payload.name, cwd=payload.parent)
    assert re.search("warning: .* gone: sign it again", done.stderr)
    lpmangle("verify", "--original", EXAMPLE, payload.name, cwd=payload.parent)
