"""lpmangle verify: what is verified, what is not, and the messages."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from builds import ROOT, run
from elfbuild import GLOBAL, TEXT, Sym, build, build_id
from stacked import ident, stacked

from lpmangle import elf
from lpmangle.jobs.verify import verify_file

EXAMPLES = ROOT / "examples"
EXAMPLE = EXAMPLES / "fbab204.livepatch"
SIGNATURE = b"\x30\x82\x01\x02" + bytes(range(200)) + bytes(8) + b"\0\0\0\xcc" + b"~Module signature appended~\n"


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    path = Path(shutil.copy(EXAMPLE, tmp_path))
    lpmangle(str(path))
    return path


def lpmangle(*words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    return run(["lpmangle", *map(str, words)], ROOT, code=code)


def test_it_holds(payload: Path) -> None:
    for options in ((), ("--original", EXAMPLE), ("-m", f"{payload}.manifest.json"), ("-m", payload.parent)):
        done = lpmangle("verify", payload, *options)
        assert done.stdout == f"{payload}: verified, 5 renamed symbols, nothing else differs\n"
    (report,) = json.loads(lpmangle("verify", "--json", payload).stdout)["payloads"]
    assert report == {
        "payload": str(payload),
        "status": "verified",
        "exit_code": 0,
        "error": None,
        "hint": None,
        "verified": True,
        "findings": [],
        "appended_bytes": 0,
        "since": None,
        "signature": None,
    }


def test_nothing_was_renamed(tmp_path: Path) -> None:
    payload = tmp_path / "p.livepatch"
    payload.write_bytes(build([TEXT, build_id()], [Sym(b"f", bind=GLOBAL)]).data)
    lpmangle(payload)
    assert verify_file(str(payload)).verified
    manifest = json.loads(Path(f"{payload}.manifest.json").read_text())
    manifest["kept"] = []
    Path(f"{payload}.manifest.json").write_text(json.dumps(manifest))
    assert verify_file(str(payload)).findings == ["kept: f is missing in the manifest"]


def test_names_of_functions_that_are_no_strings(tmp_path: Path) -> None:
    """Only borrowed names need them."""
    built = stacked(1, ident(2), new=["a.c#f"], replaces=["x"], last="tail")
    table = elf.parse(built.data).section_named(".rela.livepatch.funcs")
    assert table
    data = bytearray(built.data)
    struct.pack_into("<q", data, table.offset + 16, len(b"printed\0x\0"))
    payload = tmp_path / "p.livepatch"
    payload.write_bytes(data)
    lpmangle(payload)
    assert verify_file(str(payload)).verified


def test_a_payload_with_the_mark_of_version_1() -> None:
    """Output of lpmangle 0.1.0 is still verified, counts as already mangled, and can be restored."""
    crash = ROOT / "tests" / "data" / "crash" / "crash.livepatch"
    assert b"\0lpmangle 1 --suffix text:" in crash.read_bytes()
    assert verify_file(str(crash)).verified


@pytest.mark.parametrize("with_original", [False, True])
def test_a_damaged_payload(payload: Path, with_original: bool) -> None:
    good = payload.read_bytes()
    damaged = bytearray(good)
    damaged[good.index(b"_get_fpu_") + 1] = 0x47
    payload.write_bytes(damaged)
    said = lpmangle("verify", payload, *(("--original", EXAMPLE) if with_original else ()), code=1).stdout
    assert "sha256 is" in said
    assert "name is x86_emulate.c#_Get_fpu_" in said
    assert ("LIEF: symbol" in said) == with_original
    (report,) = json.loads(lpmangle("verify", "--json", payload, code=1).stdout)["payloads"]
    assert (report["status"], report["exit_code"], report["verified"]) == ("differs", 1, False)


def test_several_false_fields_are_all_told(payload: Path) -> None:
    path = Path(f"{payload}.manifest.json")
    manifest = json.loads(path.read_text())
    manifest["symbols"][0]["size"] += 1
    manifest["build_id"] = "abcdef01"
    manifest["kept"] = ["x"]
    path.write_text(json.dumps(manifest))
    said = "\n".join(verify_file(str(payload)).findings)
    assert "symbol 9: size is 13, the manifest says 14" in said
    assert "the manifest says abcdef01" in said
    assert "--suffix buildid gives abcdef01" in said


@pytest.mark.parametrize("change", ["", "objcopy", "restore"])
def test_the_manifest_of_another_payload(payload: Path, change: str) -> None:
    """One line says so, whatever else was done to the payload."""
    other = Path(shutil.copy(EXAMPLES / "617712b.livepatch", payload.parent))
    lpmangle("--suffix", "text:v1", "--only", "*_fpu", other)
    theirs = Path(f"{other}.manifest.json")
    if change == "restore":
        manifest = json.loads(theirs.read_text())
        for symbol in manifest["symbols"]:
            symbol["original"] = f"another_{symbol['original']}"
        theirs.write_text(json.dumps(manifest))
        lpmangle("restore", payload)
    elif change:
        subprocess.run([change, payload], check=True)
    assert lpmangle("verify", payload, "-m", theirs, code=1).stdout == (
        f"{payload}: the manifest belongs to another payload: 617712b, build-id "
        "a46b5c175e2839ad0fcd31212d3715bde54b2c28; this payload has build-id d967c17f6518371e26e591728fd30fa3f292977c\n"
    )


def test_a_wrong_original(payload: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_bytes(EXAMPLE.read_bytes()[:-1] + b"\x01")
    assert "the original's sha256 is" in lpmangle("verify", payload, "--original", wrong, code=1).stdout
    wrong.write_text("no ELF file")
    assert f"{wrong}: not an ELF file" in lpmangle("verify", payload, "--original", wrong, code=3).stderr


def test_the_original_is_not_mangled(payload: Path) -> None:
    shutil.copy(EXAMPLE, payload)
    assert lpmangle("verify", payload, code=1).stdout == f"{payload}: is the original: it is not mangled\n"


def test_not_mangled_and_no_manifest(payload: Path) -> None:
    """The message says whether it is mangled, and that there is no manifest."""
    manifest = Path(f"{payload}.manifest.json")
    manifest.unlink()
    for command in ("verify", "restore"):
        said = lpmangle(command, payload, code=3).stderr
        assert f"{payload}: is mangled, but has no manifest beside it ({manifest}) and none inside\n" in said
    subprocess.run(["objcopy", payload], check=True)
    said = lpmangle("verify", payload, code=3).stderr
    assert "is mangled, was changed since by objcopy or strip, and has no manifest beside it" in said
    shutil.copy(EXAMPLE, payload)
    for command in ("verify", "restore"):
        said = lpmangle(command, payload, code=3).stderr
        assert f"{payload}: is not mangled (it has no mark), and has no manifest beside it" in said
    folder = payload.parent / "empty"
    folder.mkdir()
    assert "is not mangled (it has no mark), and no" in lpmangle("verify", payload, "-m", folder, code=3).stderr
    another = payload.parent / "another.livepatch"
    shutil.copy(EXAMPLE, another)
    said = lpmangle("verify", payload, "-m", another, code=3).stderr
    assert said.startswith(f"lpmangle: {another}: has no manifest beside it")
    payload.write_text("no ELF file\n")
    assert lpmangle("verify", payload, code=3).stderr == f"lpmangle: {payload}: not an ELF file\n"


def test_the_name_of_the_file(payload: Path) -> None:
    """A renamed file, with or without its manifest, is the same payload; a symbolic link's name does not matter."""
    link = payload.parent / "link.livepatch"
    link.symlink_to(payload.name)
    lpmangle("verify", link)
    other = payload.parent / "other.livepatch"
    shutil.copy(payload, other)
    was = "renamed since (its manifest calls it fbab204)"
    verified = f"{other}: verified, 5 renamed symbols, nothing else differs; {was}\n"
    assert lpmangle("verify", other, "-m", f"{payload}.manifest.json").stdout == verified
    shutil.copy(f"{payload}.manifest.json", f"{other}.manifest.json")
    assert lpmangle("verify", other).stdout == verified
    (report,) = json.loads(lpmangle("verify", other, "--json").stdout)["payloads"]
    assert report["since"] == was
    data = bytearray(other.read_bytes())
    data[-3] ^= 1  # in a new name
    other.write_bytes(data)
    said = lpmangle("verify", other, code=1).stdout
    assert f"{other}: its file is called other, the manifest says that it is uploaded as fbab204\n" in said
    assert was not in said


def test_a_mangled_payload_with_another_name(payload: Path) -> None:
    """-o copies it, and its manifest, as they are."""
    other = payload.parent / "other.livepatch"
    assert lpmangle("-o", other, payload).stdout.endswith("already mangled\n")
    assert other.read_bytes() == payload.read_bytes()
    assert lpmangle("verify", other).stdout.endswith("renamed since (its manifest calls it fbab204)\n")


def test_signed_afterwards(payload: Path) -> None:
    """The right order: it verifies as it is."""
    with payload.open("ab") as file:
        file.write(SIGNATURE)
    said = lpmangle("verify", payload, "--original", EXAMPLE).stdout
    assert said == (
        f"{payload}: {len(SIGNATURE)} bytes of a signature were appended since; without that:\n"
        f"{payload}: verified, 5 renamed symbols, nothing else differs\n"
    )
    (report,) = json.loads(lpmangle("verify", "--json", payload).stdout)["payloads"]
    assert (report["verified"], report["appended_bytes"]) == (True, len(SIGNATURE))
    damaged = bytearray(payload.read_bytes())
    damaged[damaged.index(b"_get_fpu_")] ^= 1
    payload.write_bytes(damaged)
    assert "sha256 is" in lpmangle("verify", payload, code=1).stdout


def test_what_is_said_of_payloads_below(tmp_path: Path) -> None:
    """They are compared with their own manifests, if SOURCE has them."""
    a, b = tmp_path / "617712b.livepatch", tmp_path / "8d4a1c7.livepatch"
    shutil.copy(EXAMPLES / a.name, a)
    shutil.copy(EXAMPLES / "stacked" / b.name, b)
    lpmangle(a)
    lpmangle("--against", a, b)
    assert verify_file(str(b), str(tmp_path)).verified
    beside = Path(f"{b}.manifest.json")
    manifest = json.loads(beside.read_text())
    assert [one["payload"] for one in manifest["against"]] == ["617712b"]
    manifest["against"][0]["payload"] = "other"
    beside.write_text(json.dumps(manifest))
    assert verify_file(str(b)).verified  # the payload does not have the name of another one
    build_id = manifest["against"][0]["build_id"]
    said = f"below it: payload is 617712b in the manifest of {build_id}, in this one other"
    assert verify_file(str(b), str(tmp_path)).findings == [said]
    # The same payload mangled in another way does not have the names.
    lpmangle("restore", a)
    lpmangle("--suffix", "text:OTHER", a)
    assert any("is called" in line for line in verify_file(str(b), str(tmp_path)).findings)
