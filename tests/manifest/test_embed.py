"""The manifest inside the payload: what changes, what other tools do with it, and restoring."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from commands import EXAMPLES, lpmangle
from corpus import fixtures
from elfbuild import ABS, TEXT, Sec, Sym, build, build_id, plain

from lpmangle import elf
from lpmangle.errors import LpmangleError, ManifestError, PlanError, ProofError
from lpmangle.mangle.apply import apply
from lpmangle.mangle.decide import make_plan
from lpmangle.mangle.options import Options
from lpmangle.manifest import embed
from lpmangle.manifest.undo import undo
from lpmangle.manifest.write import encode
from lpmangle.xen.payload import Payload

FIXTURES = sorted(fixtures())


def readelf(path: Path, *options: str) -> list[str]:
    done = subprocess.run(["readelf", "-W", *options, path], capture_output=True, text=True, check=True)
    assert done.stderr == "", done.stderr
    return done.stdout.splitlines()


def functions(path: Path) -> set[tuple[str, ...]]:
    """Value, size and name of all functions."""
    rows = [line.split() for line in readelf(path, "--symbols") if " FUNC " in line]
    assert rows
    return {(row[1], row[2], row[7]) for row in rows}


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    path = Path(shutil.copy(EXAMPLES / "fbab204.livepatch", tmp_path))
    lpmangle("--embed", path)
    return path


@pytest.mark.parametrize("name", FIXTURES)
def test_every_kind_of_payload(name: str, tmp_path: Path) -> None:
    """For readelf, symbols, relocations and sections are as without --embed; restore gives the original."""
    original = fixtures()[name].path
    plain_path, embedded = tmp_path / "plain.livepatch", tmp_path / "embedded.livepatch"
    lpmangle("--suffix", "text:SUF", "-o", plain_path, original)
    lpmangle("--suffix", "text:SUF", "--embed", "-o", embedded, original)
    if plain_path.read_bytes() == original.read_bytes():
        assert embedded.read_bytes() == original.read_bytes()  # nothing to rename, nothing to embed
        return
    for option in ("--symbols", "--relocs", "--notes"):
        assert readelf(embedded, option) == readelf(plain_path, option)
    before, after = plain_path.read_bytes(), embedded.read_bytes()
    different = [at for at, (old, new) in enumerate(zip(before, after, strict=False)) if old != new]
    assert different
    assert all(32 <= at < 64 for at in different)  # e_shoff, e_shnum, whatever the class
    sidecar = Path(f"{embedded}.manifest.json")
    text = embed.extract(elf.parse(after))
    assert text == sidecar.read_bytes()
    manifest = json.loads(text)
    assert manifest["output"] == {"sha256": hashlib.sha256(before).hexdigest(), "size": len(before)}
    sidecar.unlink()
    assert "verified" in lpmangle("verify", embedded).stdout
    lpmangle("restore", embedded)
    assert embedded.read_bytes() == original.read_bytes()


def test_found_by_all_commands_without_a_sidecar(payload: Path, tmp_path: Path) -> None:
    manifest = json.loads(Path(f"{payload}.manifest.json").read_text())
    Path(f"{payload}.manifest.json").unlink()
    name = f"x86_emulate.c#_get_fpu_{manifest['build_id']}"
    assert name in lpmangle("query", "_get_fpu", "-m", payload).stdout
    assert name in lpmangle("query", "_get_fpu", "-m", tmp_path).stdout
    (tmp_path / "log").write_text(f"{name}+0x1/0x2\n")
    assert lpmangle("retrace", "-m", payload, tmp_path / "log").stdout == "x86_emulate.c#_get_fpu+0x1/0x2\n"
    assert "verified" in lpmangle("verify", payload).stdout
    assert lpmangle(payload).stdout.endswith("already mangled\n")
    copy = tmp_path / "copy.livepatch"
    assert lpmangle("-o", copy, payload).stderr == ""
    assert copy.read_bytes() == payload.read_bytes()
    assert json.loads(Path(f"{copy}.manifest.json").read_text()) == manifest
    lpmangle("restore", payload)
    assert payload.read_bytes() == (EXAMPLES / "fbab204.livepatch").read_bytes()


def test_embedded_later(tmp_path: Path) -> None:
    """That needs the original, and so the manifest."""
    path = Path(shutil.copy(EXAMPLES / "fbab204.livepatch", tmp_path))
    lpmangle("--embed", "-o", tmp_path / "expected", path)
    lpmangle(path)
    before = path.read_bytes()
    manifest = Path(f"{path}.manifest.json").rename(tmp_path / "moved")
    assert "its manifest is not embedded" in lpmangle("--embed", path).stderr
    assert path.read_bytes() == before
    manifest.rename(f"{path}.manifest.json")
    assert "restored first" in lpmangle("--embed", path).stdout
    lpmangle("verify", path, "--original", EXAMPLES / path.name)
    assert lpmangle("--embed", path).stdout.endswith("already mangled\n")


@pytest.mark.parametrize(
    ("command", "stays"),
    [
        (["objcopy"], True),
        (["llvm-objcopy"], True),
        (["strip", "-g"], False),
        (["llvm-strip", "-g"], False),
        (["objcopy", "--remove-section=.debug_lpmangle"], False),
    ],
)
def test_other_tools_write_it_anew(payload: Path, command: list[str], stays: bool) -> None:
    """The section stays unchanged, or goes; the symbols stay; with the manifest the original can be recovered."""
    text = embed.extract(elf.parse(payload.read_bytes()))
    symbols = functions(payload)
    Path(f"{payload}.manifest.json").unlink()
    subprocess.run([*command, payload], check=True)
    view = elf.parse(payload.read_bytes())
    assert embed.extract(view) == (text if stays else None)
    assert functions(payload) == symbols
    if stays:
        assert "_get_fpu_" in lpmangle("query", "_get_fpu", "-m", payload).stdout
        lpmangle("restore", payload)
        assert payload.read_bytes() == (EXAMPLES / payload.name).read_bytes()
    else:
        assert "has no manifest" in lpmangle("restore", payload, code=3).stderr


def test_verify_finds_what_was_changed(payload: Path) -> None:
    data = payload.read_bytes()
    section = elf.parse(data).sections[-1]
    sidecar = Path(f"{payload}.manifest.json")
    for at, words in (
        (section.offset + section.size // 2, "is damaged"),
        (64, ""),
        (elf.parse(data).section_names.offset + 1, ""),
        (len(data) - 1, ""),
    ):
        changed = bytearray(data)
        changed[at] ^= 1
        payload.write_bytes(changed)
        done = subprocess.run(
            [sys.executable, "-m", "lpmangle", "verify", payload, "-m", sidecar],
            capture_output=True,
            text=True,
        )
        assert done.returncode in (1, 3), (at, done.stdout, done.stderr)
        assert words in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def mangled(data: bytes) -> tuple[elf.Object, bytes]:
    """A mangled payload and its manifest, to be embedded."""
    payload = Payload(elf.parse(data))
    plan = make_plan(payload, Options("text:SUF"), "p")
    after = bytes(apply(payload, plan))
    return elf.parse(after), b"".join(encode(payload, plan, after, "p", embedded=True))


@pytest.mark.parametrize("is_64", [True, False])
@pytest.mark.parametrize("big", [True, False])
@pytest.mark.parametrize("one_string_table", [True, False])
def test_classes_byte_orders_and_shared_tables(is_64: bool, big: bool, one_string_table: bool) -> None:
    data = plain(is_64=is_64, big=big, one_string_table=one_string_table).data
    view, text = mangled(data)
    after = embed.add(view, text)
    whole = elf.parse(after)
    assert embed.extract(whole) == text
    assert [s.name for s in whole.sections] == [*(s.name for s in view.sections), ".debug_lpmangle"]
    assert embed.without(whole).data == view.data
    from lpmangle.manifest.read import decode

    assert undo(embed.without(whole), decode(text)) == data


def test_as_many_sections_as_xen_takes() -> None:
    def with_sections(count: int) -> elf.Object:
        sections = [TEXT, build_id(), *(Sec(f".s{n}", b"", flags=0) for n in range(count - 6))]
        return mangled(build(sections, [Sym(b"f"), Sym(b"x", ABS)]).data)[0]

    view = with_sections(1022)
    assert len(view.sections) == 1022
    assert len(elf.parse(embed.add(view, b"{}")).sections) == 1023
    with pytest.raises(PlanError, match="refuses one more"):
        embed.add(with_sections(1023), b"{}")


def test_number_of_sections_in_section_0() -> None:
    """gABI: e_shnum 0, the number in sh_size of section 0."""
    built = plain()
    data = bytearray(built.edit("ehdr", "e_shnum", 0))
    code, at = built.at("shdr", "sh_size", 0)
    data[at : at + 8] = built.get("ehdr", "e_shnum").to_bytes(8, "little")
    assert code == "Q"
    view, text = mangled(bytes(data))
    whole = elf.parse(embed.add(view, text))
    assert len(whole.sections) == len(view.sections) + 1
    assert embed.without(whole).data == view.data


@pytest.mark.parametrize("is_64", [True, False])
def test_proof_finds_any_other_difference(is_64: bool) -> None:
    """Any single bit, and a byte more."""
    view, text = mangled(plain(is_64=is_64).data)
    content = embed.compress(text)
    good = embed.embed(view, content)
    embed.prove(view, good, content)
    rng = random.Random(3)
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1 << rng.randrange(8)
        with pytest.raises(LpmangleError):
            embed.prove(view, bytes(bad), content)
    for bad_end in (good + b"\0", good[:-1], good[:100], b""):
        with pytest.raises(ProofError):
            embed.prove(view, bad_end, content)
    with pytest.raises(ProofError):
        embed.prove(view, good, content + b"x")
    with pytest.raises(ProofError):
        embed.prove(view, view.data, content)


def test_damaged_content() -> None:
    text = b"x" * 1000
    content = embed.compress(text)
    assert embed.decompress(content) == text
    for bad in (b"", b"no zlib", content[:-1], content + b"x", zlib.compress(b"x" * 100)[:-4] + b"abcd"):
        with pytest.raises(ManifestError, match="is damaged"):
            embed.decompress(bad)


@pytest.mark.parametrize("is_64", [True, False])
@pytest.mark.parametrize("big", [True, False])
def test_compressed_by_objcopy(is_64: bool, big: bool, tmp_path: Path) -> None:
    """llvm-objcopy compresses compressed content; the manifest is still found, in every class and byte order."""
    (tmp_path / "p").write_bytes(plain(is_64=is_64, big=big).data)
    lpmangle("--suffix", "text:SUF", "--embed", "-o", tmp_path / "m.livepatch", tmp_path / "p")
    command = ["llvm-objcopy", "--compress-debug-sections=zlib", "m.livepatch", "c.livepatch"]
    subprocess.run(command, cwd=tmp_path, check=True)
    before, after = (elf.parse((tmp_path / f"{name}.livepatch").read_bytes()) for name in "mc")
    section = after.section_named(embed.SECTION)
    assert section
    assert section.flags & 0x800  # SHF_COMPRESSED
    assert embed.extract(after) == embed.extract(before) is not None
    assert embed.without(after) is after


def test_compressed_in_another_way() -> None:
    with pytest.raises(ManifestError, match="was compressed with zstd") as refused:
        embed.decompress(struct.pack("<IIQQ", 2, 0, 99, 1) + b"zstd")
    assert "--decompress-debug-sections" in refused.value.hint
    for content in (b"", b"no zlib", zlib.compress(b"no zlib"), embed.compress(b"x")[:-1]):
        with pytest.raises(ManifestError, match="is damaged"):
            embed.decompress(struct.pack(">III", 1, 99, 1) + content)


def test_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "MAX_TEXT", 1 << 20)
    with pytest.raises(ManifestError, match="bytes become more than"):
        embed.decompress(zlib.compress(bytes(64 << 20)))
    with pytest.raises(ManifestError, match="is damaged"):
        embed.decompress(struct.pack("<IIQQ", 1, 0, 64 << 20, 1) + zlib.compress(bytes(64 << 20)))


def test_random_damage() -> None:
    """A damaged one is refused cleanly, or the result is what the manifest describes."""
    view, text = mangled((EXAMPLES / "fbab204.livepatch").read_bytes())
    good = embed.add(view, text)
    rng = random.Random(seed := int(os.environ.get("LPMANGLE_SEED", "5")))
    print(f"seed: LPMANGLE_SEED={seed}")
    same = 0
    for _ in range(3000):
        bad = bytearray(good)
        for _ in range(rng.choice([1, 1, 3])):
            at = rng.choice([rng.randrange(64), rng.randrange(len(bad)), len(bad) - 1 - rng.randrange(1100)])
            bad[at] = rng.randrange(256)
        try:
            whole = elf.parse(bytes(bad))
            bare = embed.without(whole)
            embed.extract(whole)
        except LpmangleError:
            continue
        if bare is not whole:
            same += 1
            assert embed.embed(bare, bytes(whole.section_data(whole.sections[-1]))) == bytes(bad)
    assert same
