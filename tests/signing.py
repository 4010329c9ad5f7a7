"""Payloads signed as vendors do it: a note section added by objcopy, and OpenSSL. No code of lpmangle."""

from __future__ import annotations

import atexit
import shutil
import struct
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

SECTION = ".note.Xen.signature"
SIZE = 256  # of an RSA signature by a key of 2048 bits
RSA_SHA256 = 1  # the type of the note: version 1, algorithm 0, hash 0


def note(signature: bytes, kind: int = RSA_SHA256, name: bytes = b"Xen\0", order: str = "<") -> bytes:
    """An ELF note."""
    return struct.pack(order + "III", len(name), len(signature), kind) + name + signature


def older(signature: bytes, version: int = 1, algorithm: int = 0, digest: int = 0, length: int = -1) -> bytes:
    """The older form: version and algorithms are in the descriptor."""
    length = len(signature) if length < 0 else length
    return note(struct.pack("<HBBI", version, algorithm, digest, length) + signature, 0)


def add_note(payload: Path, content: bytes, objcopy: str = "objcopy", how: str = "add", *options: str) -> None:
    """The section with this content, added to the payload or (`how` is "update") in place of the one there."""
    file = payload.with_name(payload.name + ".note")
    file.write_bytes(content)
    subprocess.run([objcopy, f"--{how}-section={SECTION}={file}", *options, payload], check=True)
    file.unlink()


def key(name: str = "one") -> Path:
    """The path of an RSA key, always the same for a name; its public half is beside it (`public`)."""
    return _key(name)


@cache
def _key(name: str) -> Path:
    path = Path(mkdtemp(prefix="lpmangle-key-")) / f"{name}.pem"
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    rsa = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
    subprocess.run(["openssl", "genpkey", *rsa, "-out", path], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", path, "-pubout", "-out", public(path)], check=True)
    return path


def public(path: Path) -> Path:
    return path.with_suffix(".pub")


def sign(payload: Path, objcopy: str = "objcopy", key_name: str = "one") -> None:
    """All steps: add a blank note, sign the file in that state, put the signature into the note."""
    add_note(payload, note(bytes(SIZE)), objcopy)
    command = ["openssl", "dgst", "-sha256", "-sign", str(key(key_name)), str(payload)]
    signature = subprocess.run(command, check=True, capture_output=True).stdout
    assert len(signature) == SIZE
    add_note(payload, note(signature), objcopy, "update")
