"""Where manifests are found: bad ones in a folder, which files count, payloads without a manifest."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import EXAMPLES, lpmangle
from fuzz.seeds import catalogs
from manifests import plain, write

from lpmangle import elf
from lpmangle.manifest import embed

NAME = "x86_emulate.c#_get_fpu"


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    """A mangled one with its manifest inside, not beside."""
    path = Path(shutil.copy(EXAMPLES / "fbab204.livepatch", tmp_path))
    lpmangle("--embed", path)
    Path(f"{path}.manifest.json").unlink()
    return path


def _unreadable(path: Path) -> None:
    path.symlink_to("nowhere")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _empty(path: Path) -> None:
    path.touch()


def _cut(path: Path) -> None:
    """Its head is complete."""
    whole = next(write(path.parent / "cut", plain("cut", "c.c#h")).iterdir())
    path.write_bytes(whole.read_bytes()[:-20])
    shutil.rmtree(path.parent / "cut")


def _cut_early(path: Path) -> None:
    path.write_text('{"format": "lpmangle-manifest", "vers')


def _foreign(path: Path) -> None:
    path.write_text('{"name": "some other tool"}')


def _newer(path: Path) -> None:
    path.write_text('{"format": "lpmangle-manifest", "version": "2.0"}')


def _damaged_inside(path: Path) -> None:
    """A payload whose manifest cannot be unpacked."""
    path.write_bytes((EXAMPLES / "fbab204.livepatch").read_bytes())
    lpmangle("--embed", "--manifest", path.with_suffix(".json"), path)
    path.with_suffix(".json").unlink()
    data = path.read_bytes()
    section = elf.parse(data).section_named(embed.SECTION)
    assert section
    path.write_bytes(data[: section.offset + 5] + b"\xff" + data[section.offset + 6 :])


@pytest.mark.parametrize(
    ("make", "ending", "words"),
    [
        (_unreadable, ".manifest.json", "cannot read: No such file or directory"),
        (_unreadable, ".livepatch", "cannot read: No such file or directory"),
        (_fifo, ".manifest.json", "is a FIFO, not a regular file"),
        (_empty, ".manifest.json", "not a manifest of lpmangle"),
        (_cut, ".manifest.json", "not a manifest of lpmangle"),
        (_cut_early, ".manifest.json", "not a manifest of lpmangle"),
        (_foreign, ".manifest.json", "not a manifest of lpmangle"),
        (_newer, ".manifest.json", "manifest version '2.0'"),
        (_damaged_inside, ".livepatch", "the manifest in .debug_lpmangle is damaged"),
    ],
)
def test_one_bad_manifest_in_a_folder(make: Callable[[Path], None], ending: str, words: str, tmp_path: Path) -> None:
    """It is left out with a warning, once, and the others serve, whatever the command."""
    folder = write(tmp_path / "m", plain("good", NAME))
    make(bad := folder / f"a{ending}")
    expected = f"lpmangle: {bad}: warning: left out: {words}"
    new = plain("good", NAME)["symbols"][0]["name"]
    (tmp_path / "log").write_text(f"{new} c.c#h_{plain('cut')['build_id']}\n")
    for args, answer in (
        (("query", NAME, NAME + "+1", "-m", folder), f"{NAME}\n"),
        (("retrace", "-m", folder, tmp_path / "log"), f"{NAME} "),
        (("catalog", "add", tmp_path / "c.db", folder), f"{tmp_path / 'c.db'}: 1 manifest added"),
    ):
        done = lpmangle(*args)
        assert done.stdout.startswith(answer)
        assert done.stderr.startswith(expected)
        assert done.stderr.count("left out") == 1
    assert "left out" not in lpmangle("query", NAME, "-m", next(folder.glob("good-*"))).stderr
    # If it is named, it is an error.
    assert words in lpmangle("query", NAME, "-m", bad, code=4 if make in (_unreadable, _fifo) else 3).stderr


def test_a_folder_in_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    """The kernel refuses so long a path, even for root."""
    folder = write(tmp_path / "m", plain("good", NAME))
    here = os.open(folder, os.O_RDONLY)
    try:
        for _ in range(20):
            os.mkdir("d" * 250, dir_fd=here)
            inner = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
    finally:
        os.close(here)
    done = lpmangle("query", NAME, "-m", folder)
    assert done.stdout.startswith(NAME)
    assert "warning: left out: cannot read: File name too long" in done.stderr


def test_sources_that_do_not_fit(tmp_path: Path) -> None:
    mangled, other = (Path(shutil.copy(EXAMPLES / f"{name}.livepatch", tmp_path)) for name in ("fbab204", "617712b"))
    lpmangle(mangled)
    assert "has no manifest beside it" in lpmangle("query", "x", "-m", other, code=3).stderr
    shutil.copy(f"{mangled}.manifest.json", f"{other}.manifest.json")
    assert "belongs to another payload" in lpmangle("query", "x", "-m", other, code=3).stderr
    assert "is not mangled" in lpmangle("restore", other, code=3).stderr
    findings = lpmangle("verify", other, code=1).stdout
    assert "sha256 is" in findings
    assert "build-id is" in findings
    assert "not a manifest of lpmangle" in lpmangle("query", "x", "-m", __file__, code=3).stderr
    lpmangle("query", "x", code=2)


@pytest.mark.parametrize("bad", ["nowhere", "text", "catalog", "host:8002", "http://:1"])
def test_a_log_is_copied_whatever_happens_to_sources(tmp_path: Path, bad: str) -> None:
    """The others are used; a line says at once that one failed, with a hint, and so does the exit code."""
    folder = write(tmp_path / "m", plain("good", NAME))
    new = plain("good", NAME)["symbols"][0]["name"]
    (tmp_path / "log").write_text(f"{new}+0x1/0x2\nxyz\n")
    (tmp_path / "text").write_text("no manifest")
    (tmp_path / "catalog").write_bytes(catalogs()["types"])  # it can be opened
    words, code = {
        "nowhere": ("cannot read: No such file or directory", 4),
        "text": ("not a manifest of lpmangle", 3),
        "catalog": ("is damaged", 3),
        "host:8002": ("the URL of a debuginfod server begins with http://", 4),
        "http://:1": ("is not the URL of a debuginfod server", 2),
    }[bad]
    done = lpmangle("retrace", "-m", bad, "-m", folder, "log", cwd=tmp_path, code=code)
    assert done.stdout == f"{NAME}+0x1/0x2\nxyz\n"
    assert done.stderr.startswith(f"lpmangle: {bad}: ")
    assert words in done.stderr
    done = lpmangle("retrace", "-m", bad, "log", cwd=tmp_path, code=code)
    assert done.stdout == f"{new}+0x1/0x2\nxyz\n"


def test_no_manifest_is_refused(tmp_path: Path) -> None:
    """Exit code 3, wherever one is searched."""
    payload = Path(shutil.copy(EXAMPLES / "fbab204.livepatch", tmp_path))
    before = payload.read_bytes()
    folder = write(tmp_path / "m", plain("other", NAME))
    for command in ("verify", "restore"):
        assert "has no manifest beside it" in lpmangle(command, payload, code=3).stderr
        assert "has no manifest beside it" in lpmangle(command, payload, "-m", payload, code=3).stderr
        assert "no manifest with its build-id" in lpmangle(command, payload, "-m", folder, code=3).stderr
    assert "has no manifest beside it" in lpmangle("query", "x", "-m", payload, code=3).stderr
    assert payload.read_bytes() == before


def split(payload: Path, *options: str) -> Path:
    """The .debug file that eu-strip makes of a payload; the payload is stripped."""
    debug = Path(f"{payload}-1.0-1.x86_64.debug")  # as in a debuginfo package
    subprocess.run(["eu-strip", "--remove-comment", *options, "-f", debug, payload], check=True)
    return debug


@pytest.mark.parametrize("how", ["eu-strip", "eu-strip --reloc-debug-sections", "objcopy"])
def test_debug_file_is_a_source(payload: Path, tmp_path: Path, how: str) -> None:
    """The file that RPM's find-debuginfo splits from a payload has the manifest, and often no symbols."""
    if how == "objcopy":
        debug = Path(f"{payload}.debug")
        subprocess.run(["objcopy", "--only-keep-debug", payload, debug], check=True)
        subprocess.run(["objcopy", "--strip-debug", payload], check=True)
    else:
        debug = split(payload, *how.split()[1:])
    assert elf.parse(payload.read_bytes()).section_named(embed.SECTION) is None
    (tmp_path / "debug" / "deep").mkdir(parents=True)
    debug = debug.rename(tmp_path / "debug" / "deep" / debug.name)
    shutil.copy("/bin/true", debug.with_name("program.debug"))
    new = f"{NAME}_d967c17f6518371e26e591728fd30fa3f292977c"
    (tmp_path / "log").write_text(f"{new}+0x1/0xd\n")
    lpmangle("catalog", "add", tmp_path / "c.db", debug)
    for source in (debug, tmp_path / "debug", tmp_path / "c.db"):
        assert new in lpmangle("query", NAME, "-m", source).stdout
        done = lpmangle("retrace", "-m", source, tmp_path / "log")
        assert (done.stdout, done.stderr) == (f"{NAME}+0x1/0xd\n", "")
        assert "the manifest says" in lpmangle("verify", payload, "-m", source, code=1).stdout


def test_debug_file_without_the_manifest(tmp_path: Path) -> None:
    """With -g eu-strip leaves the section in the payload, and its name in the .debug file."""
    payload = Path(shutil.copy(EXAMPLES / "fbab204.livepatch", tmp_path))
    subprocess.run(["objcopy", f"--add-section=.debug_str={__file__}", payload], check=True)
    lpmangle("--embed", payload)
    debug = split(payload, "-g")
    section = elf.parse_sections(debug.read_bytes()).section_named(embed.SECTION)
    assert section
    assert section.type == elf.SHT_NOBITS
    assert "has no manifest beside it" in lpmangle("query", NAME, "-m", debug, code=3).stderr
    done = lpmangle("query", NAME, "-m", tmp_path)
    assert done.stdout.startswith(NAME)
    assert done.stderr == ""
