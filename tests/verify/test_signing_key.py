"""verify --key and check --key: signatures of OpenSSL, and everything that is not valid."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builds import ROOT, run
from signing import SECTION, SIZE, add_note, key, note, older, public, sign

from lpmangle import elf
from lpmangle.jobs.mangle import mangle_file
from lpmangle.mangle.options import Options
from lpmangle.verify.signing_key import SigningKey

EXAMPLE = ROOT / "examples" / "fbab204.livepatch"


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    path = Path(shutil.copy(EXAMPLE, tmp_path))
    mangle_file(str(path), Options())
    return path


def said(payload: Path, *words: str | Path, code: int) -> str:
    command = ["lpmangle", "verify", "--key", str(public(key())), *map(str, words), str(payload)]
    return run(command, payload.parent, code=code).stdout


@pytest.mark.parametrize("tool", ["objcopy", "llvm-objcopy"])
def test_valid(payload: Path, tool: str) -> None:
    sign(payload, tool)
    lines = said(payload, code=0).splitlines()
    assert lines == [
        f"{payload}: its signature is valid, made with the key {public(key())}",
        f"{payload}: verified, 5 renamed symbols, nothing else differs; "
        "signed since (.note.Xen.signature, RSA, SHA-256)",
    ]
    (report,) = json.loads(said(payload, "--json", code=0))["payloads"]
    assert (report["verified"], report["signature"]) == (True, "valid")
    done = run(["lpmangle", "check", "--key", str(public(key())), str(payload)], payload.parent)
    assert f"{payload}: its signature is valid, made with the key" in done.stdout
    assert "not-mangled" not in done.stdout  # the mark is gone, the manifest says that it is


def test_what_check_says_without_a_key(payload: Path) -> None:
    sign(payload)
    done = run(["lpmangle", "check", str(payload)], payload.parent)
    assert f"{payload}: signed (.note.Xen.signature, RSA, SHA-256); --key checks whether it is valid\n" in done.stdout
    Path(f"{payload}.manifest.json").unlink()
    assert "not-mangled" in run(["lpmangle", "check", str(payload)], payload.parent).stdout
    (report,) = json.loads(run(["lpmangle", "check", "--json", str(payload)], payload.parent).stdout)["payloads"]
    assert report["signature"] == ".note.Xen.signature, RSA, SHA-256"


def test_the_older_form(payload: Path) -> None:
    add_note(payload, older(bytes(SIZE)))
    command = ["openssl", "dgst", "-sha256", "-sign", str(key()), str(payload)]
    signature = subprocess.run(command, check=True, capture_output=True).stdout
    add_note(payload, older(signature), how="update")
    assert "its signature is valid" in said(payload, code=0)


def test_a_byte_changed_since(payload: Path) -> None:
    sign(payload)
    data = bytearray(payload.read_bytes())
    data[-1] ^= 1
    payload.write_bytes(data)
    answer = SigningKey.read(str(public(key()))).answer(bytes(data))
    assert answer.status == "invalid"
    done = run(["lpmangle", "check", "--key", str(public(key())), str(payload)], payload.parent, code=1)
    assert "its signature is invalid" in done.stdout
    assert "a hypervisor that insists on signatures refuses it" in done.stdout
    (report,) = json.loads(said(payload, "--json", code=1))["payloads"]
    assert report["signature"] == "invalid"


def test_another_key(payload: Path) -> None:
    sign(payload, key_name="two")
    assert "its signature was made with another key than" in said(payload, code=1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is not signed: it has no .note.Xen.signature"),
        (note(bytes(SIZE)), "is not signed yet: its .note.Xen.signature is blank"),
        (note(b"x" * SIZE) * 2, "malformed: there are two notes, or bytes after the first"),
        (note(b"x" * 1024), "malformed: its signature has 1024 bytes, 1024 or more"),
        (note(b"x" * SIZE, 2), "malformed: version 2 is not known, only 1"),
        (note(b"x" * SIZE, 1 | 1 << 16), "malformed: algorithm 1 is not known"),
        (note(b"x" * SIZE, 1 | 1 << 24), "malformed: hash 1 is not known"),
        (note(b"x" * 100), "another key"),
    ],
)
def test_none_that_fits(payload: Path, content: bytes | None, words: str) -> None:
    if content:
        add_note(payload, content)
    assert words in said(payload, code=1)


def test_what_is_no_key(payload: Path, tmp_path: Path) -> None:
    for name, content in {"text": b"no key\n", "private": key().read_bytes(), "elliptic": elliptic(tmp_path)}.items():
        path = tmp_path / name
        path.write_bytes(content)
        for command in ("verify", "check"):
            done = run(["lpmangle", command, "--key", str(path), str(payload)], tmp_path, code=3)
            assert f"{path}: is not a public RSA key in PEM form\n  hint: openssl pkey" in done.stderr


def elliptic(folder: Path) -> bytes:
    private, path = folder / "ec.pem", folder / "ec.pub"
    command = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(private)]
    subprocess.run(command, check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", path], check=True)
    return path.read_bytes()


def test_without_the_package(payload: Path) -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        f"sys.argv = ['lpmangle', 'verify', '--key', {str(public(key()))!r}, {str(payload)!r}]\n"
        "from lpmangle.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "lpmangle: checking a signature needs the Python package cryptography, which is not installed\n"
        "  hint: install it with lpmangle: pip install 'lpmangle[sign]'\n"
    )
    done = run([sys.executable, "-X", "importtime", "-m", "lpmangle", "verify", str(payload)], payload.parent)
    assert "cryptography" not in done.stderr


def test_the_place_of_the_signature_is_all_that_may_differ(payload: Path) -> None:
    """The file with the blank note was signed: objcopy has only replaced the zeros by the signature."""
    add_note(payload, note(bytes(SIZE)))
    blank = payload.read_bytes()
    add_note(payload, note(b"\x01" * SIZE), how="update")
    section = elf.parse(payload.read_bytes()).section_named(SECTION)
    assert section
    filled = bytearray(payload.read_bytes())
    filled[section.offset + 16 : section.end] = bytes(SIZE)
    assert filled == blank
