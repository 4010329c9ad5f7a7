"""The note with a signature: both forms, malformed ones, and notes that are not a signature."""

from __future__ import annotations

import random
import struct

import pytest
from elfbuild import TEXT, Sec, Sym, build, build_id
from signing import SECTION, note, older

from lpmangle import elf
from lpmangle.xen.signature import Note, blanked, note_of, signed


def payload(*contents: bytes, big: bool = False) -> elf.Object:
    sections = [Sec(SECTION, content, flags=0, type=7) for content in contents]
    order = ">" if big else "<"
    return elf.parse(build([TEXT, build_id(order=order), *sections], [Sym(b"f")], big=big).data)


def read(*contents: bytes) -> Note:
    found = note_of(payload(*contents))
    assert found
    return found


SIGNATURE = bytes(range(1, 256)) + b"\x01"


def test_none() -> None:
    assert note_of(payload()) is None
    assert not signed(payload())


@pytest.mark.parametrize("is_older", [False, True])
def test_both_forms(is_older: bool) -> None:
    view = payload(older(SIGNATURE) if is_older else note(SIGNATURE))
    found = note_of(view)
    assert found
    assert (found.problem, found.blank, found.older, found.version, found.algorithm, found.hash) == (
        *("", False, is_older, 1, 0, 0),
    )
    assert view.data[found.offset : found.offset + found.size] == SIGNATURE
    assert str(found) == f".note.Xen.signature, RSA, SHA-256{', older form' if is_older else ''}"
    assert signed(view)
    after = note_of(elf.parse(blanked(view, found)))
    assert after == found._replace(blank=True)


def test_big_endian() -> None:
    found = note_of(payload(note(SIGNATURE, order=">"), big=True))
    assert found is not None
    assert not found.problem


@pytest.mark.parametrize(
    "content",
    [note(bytes(256)), older(bytes(256)), note(bytes(264), 0), bytes(272), bytes(5), b"", note(b"")],
    ids=["note", "struct", "struct of zeros", "zeros", "few zeros", "nothing", "no descriptor"],
)
def test_blank(content: bytes) -> None:
    """A note without any byte of a signature is not one, whatever else is wrong with it."""
    assert read(content).blank
    assert not signed(payload(content))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (note(SIGNATURE, 2), "version 2 is not known, only 1"),
        (note(SIGNATURE, 1 | 3 << 16), "algorithm 3 is not known, only 0 (RSA)"),
        (note(SIGNATURE, 1 | 5 << 24), "hash 5 is not known, only 0 (SHA-256)"),
        (note(b""), "its signature has 0 bytes"),
        (note(b"x" * 1023), ""),
        (note(b"x" * 1024), "its signature has 1024 bytes, 1024 or more"),
        (older(SIGNATURE, 2), "version 2 is not known, only 1"),
        (older(SIGNATURE, algorithm=1), "algorithm 1 is not known, only 0 (RSA)"),
        (older(SIGNATURE, digest=1), "hash 1 is not known, only 0 (SHA-256)"),
        (older(SIGNATURE, length=0), "it says 0 bytes where it has 256"),
        (older(SIGNATURE, length=257), "it says 257 bytes where it has 256"),
        (older(b"x" * 1024), "its signature has 1024 bytes, 1024 or more"),
        (older(SIGNATURE + bytes(100), length=256), ""),
        (note(SIGNATURE) + note(SIGNATURE), "there are two notes, or bytes after the first"),
        (note(SIGNATURE) + bytes(16), "there are two notes, or bytes after the first"),
        (note(SIGNATURE) + bytes(8), ""),
        (note(SIGNATURE) + b"x", "there are two notes, or bytes after the first"),
        (note(SIGNATURE, name=b"GNU\0"), "it is not called Xen"),
        (note(SIGNATURE, name=b"Xen"), "it is not called Xen"),
        (note(SIGNATURE)[:-1], "it is cut short"),
        (note(SIGNATURE)[:15], "it is cut short"),
        (note(b"1234567", 0), "it is cut short"),
    ],
)
def test_malformed(content: bytes, problem: str) -> None:
    found = read(content)
    assert found.problem == problem
    if problem:
        assert str(found) == f".note.Xen.signature, malformed: {problem}"


def test_two_sections() -> None:
    assert read(note(SIGNATURE), note(SIGNATURE)).problem == "there are 2 sections of that name"
    assert read(note(bytes(256)), note(bytes(256))).blank is False  # the type of a note is no zero


def test_a_second_note_is_a_signature() -> None:
    assert signed(payload(note(bytes(256)) + note(SIGNATURE)))


def test_whatever_its_bytes_are() -> None:
    """Never an error, and a valid note has its signature inside the section."""
    seed = 20261126
    rng = random.Random(seed)
    sound = 0
    for _ in range(3000):
        content = bytearray(rng.choice((note, older))(rng.randbytes(rng.choice((0, 1, 8, 256)))))
        for _ in range(rng.randrange(3)):
            at = rng.choice([0, 4, 8, 10, 11, 16, 18, 19, 20])
            struct.pack_into("<B", content, min(at, len(content) - 1), rng.choice((0, 1, 2, 255)))
        view = payload(bytes(content[: rng.choice((len(content), rng.randrange(len(content))))]))
        found, section = note_of(view), view.section_named(SECTION)
        assert found, seed
        assert section
        str(found)
        if not found.problem:
            sound += 1
            assert section.offset + 16 <= found.offset < found.offset + found.size <= section.end, seed
    assert sound > 100
