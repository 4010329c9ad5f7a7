"""What objcopy, strip, eu-strip and RPM's find-debuginfo did to a mangled payload, as far as names show it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from builds import ROOT, names, run
from signing import sign
from stacked import ident, stacked, write

EXAMPLE = ROOT / "examples" / "fbab204.livepatch"
ALL_THERE = re.compile(r"since then: 5 of 5 renamed symbols are there, \d of them at another index")


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    path = Path(shutil.copy(EXAMPLE, tmp_path / "p.livepatch"))
    run(["lpmangle", str(path)], tmp_path)
    return path


def said(payload: Path, *options: str | Path) -> list[str]:
    """What verify says about a payload that has changed."""
    done = run(["lpmangle", "verify", str(payload), *map(str, options)], payload.parent, code=1)
    return [line.removeprefix(f"{payload}: ") for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("command", "gone"),
    [
        (["strip", "-g"], "symbol gone: x86_emulate.c (absolute)"),
        (["eu-strip"], "section gone: .note.GNU-stack"),
        (["eu-strip", "-f", "p.debug"], "section added: .gnu_debuglink"),
    ],
)
def test_all_symbols_are_kept(payload: Path, command: list[str], gone: str) -> None:
    """It says that the payload was changed, that no name is lost, and what else is."""
    subprocess.run([*command, payload], check=True, cwd=payload.parent)
    first, second, *others = said(payload)
    assert first.startswith("sha256 is ")
    assert "objcopy, strip" in first
    assert ALL_THERE.fullmatch(second)
    assert gone in others


@pytest.mark.parametrize("command", ["objcopy", "llvm-objcopy"])
def test_laid_out_anew(payload: Path, command: str) -> None:
    """Nothing was lost, and that is proven."""
    subprocess.run([command, payload], check=True)
    done = run(["lpmangle", "verify", str(payload)], payload.parent)
    since = "rewritten since (by objcopy or the like)"
    assert done.stdout == f"{payload}: verified, 5 renamed symbols, nothing else differs; {since}\n"


def find_debuginfo(payload: Path, mode: int) -> Path:
    """A copy of the payload as it is installed, and what RPM does with it then; its path."""
    folder = payload.parent
    installed = folder / "root" / "usr" / "lib" / "livepatch" / payload.name
    installed.parent.mkdir(parents=True)
    (folder / "build").mkdir()
    shutil.copy(payload, installed)
    installed.chmod(mode)
    variables = {"RPM_BUILD_ROOT": str(folder / "root"), "RPM_BUILD_DIR": str(folder / "build"), "RPM_ARCH": "x86_64"}
    package = {f"RPM_PACKAGE_{name}": "1" for name in ("NAME", "VERSION", "RELEASE")}
    command = ["find-debuginfo", "--build-id-seed", "1", "-S", "sources.list", str(folder / "build")]
    subprocess.run(command, check=True, cwd=folder, env={**os.environ, **variables, **package}, capture_output=True)
    return installed


def test_find_debuginfo_leaves_other_files_alone(payload: Path) -> None:
    """As the README says: with mode 0644; or mangled after it, and signed."""
    installed = find_debuginfo(payload, 0o644)
    assert installed.read_bytes() == payload.read_bytes()
    shutil.rmtree(payload.parent / "root")
    shutil.rmtree(payload.parent / "build")
    shutil.copy(EXAMPLE, payload)
    installed = find_debuginfo(payload, 0o755)
    run(["lpmangle", "-q", str(installed)], payload.parent)
    sign(installed)
    assert "signed since" in run(["lpmangle", "verify", str(installed)], payload.parent).stdout


@pytest.mark.parametrize("embedded", [False, True])
def test_find_debuginfo(payload: Path, embedded: bool) -> None:
    """As RPM runs it on an executable file: debugedit changes the build-id, eu-strip renumbers the symbols."""
    folder = payload.parent
    if embedded:
        run(["lpmangle", "restore", str(payload)], folder)
        run(["lpmangle", "--embed", str(payload)], folder)
    installed = find_debuginfo(payload, 0o755)
    lines = said(installed, "-m", f"{payload}.manifest.json")
    assert lines[0].startswith("sha256 is ")
    assert re.fullmatch(r"build-id is \w+, the manifest says \w+: it was changed since \(find-debuginfo\?\)", lines[1])
    assert ALL_THERE.fullmatch(lines[2])
    # The section itself is in the .debug file now, as is .note.GNU-stack.
    gone = [f"section gone: {name}" for name in ([".debug_lpmangle"] if embedded else [])]
    assert lines[3:] == [*gone, "section gone: .note.GNU-stack", "section added: .gnu_debuglink", lines[-1]]
    assert lines[-1] == "symbol gone: .note.GNU-stack"


def test_what_a_tool_took_and_added(tmp_path: Path) -> None:
    payload = Path(shutil.copy(EXAMPLE, tmp_path / "p.livepatch"))
    run(["lpmangle", "--suffix", "name", payload.name], tmp_path)
    run(["lpmangle", "verify", payload.name], tmp_path)
    (tmp_path / "note").write_bytes(b"note")
    options = [
        *("--strip-symbol=x86_emulate.c", "--remove-section=.comment", "--add-section=.vendor=note"),
        "--redefine-sym=lp_helper_p=lp_helper",
        "--globalize-symbol=x86_emulate.c#_put_fpu_p",
        "--rename-section=.data=.data2",
    ]
    subprocess.run(["objcopy", *options, payload], check=True, cwd=tmp_path)
    lines = said(payload, "--original", EXAMPLE)
    assert lines[1].startswith("since then: 4 of 5 renamed symbols are there, ")
    assert "symbol gone: lp_helper_p (.text+0x20)" in lines
    assert "symbol changed: x86_emulate.c#_put_fpu_p: binding is GLOBAL, it was LOCAL" in lines
    assert "symbol changed: x86_emulate.c#extra_version_p: is in .data2+0x0, it was in .data+0x0" in lines
    assert "section gone: .data" in lines
    assert {"section added: .vendor", "section added: .data2"} <= set(lines)
    assert not [line for line in lines if line.startswith("section changed")]
    assert "x86_emulate.c#_get_fpu_p" in names(payload)


def test_a_changed_section(payload: Path) -> None:
    (payload.parent / "text").write_bytes(b"\x90" * 100)
    subprocess.run(["objcopy", "--update-section", ".text=text", payload], check=True, cwd=payload.parent)
    lines = said(payload, "--original", EXAMPLE)
    assert "section changed: .text: has 100 bytes, it had 98" in lines
    assert ALL_THERE.fullmatch(lines[1])


def test_names_from_payloads_below(tmp_path: Path) -> None:
    """Undefined symbols and functions to replace are compared by name, too."""
    lower = stacked(1, ident(9), new=["a.c#helper", "a.c#handler"])
    upper = stacked(2, ident(1), new=["b.c#own"], undefined=["a.c#helper"], replaces=["a.c#handler"])
    a, b = write(tmp_path, a=lower, b=upper)
    run(["lpmangle", str(a)], tmp_path)
    run(["lpmangle", "--against", str(a), str(b)], tmp_path)
    manifest = f"{b}.manifest.json"
    subprocess.run(["objcopy", b], check=True)
    run(["lpmangle", "verify", str(b)], tmp_path)
    data, name = b.read_bytes(), b"a.c#handler_" + ident(1).hex().encode()
    b.write_bytes(data.replace(name, name.replace(b"handler", b"hindler")))
    is_now = name.decode().replace("handler", "hindler")
    line = f"changed: .livepatch.funcs entry 0: name is {is_now}, the manifest says {name.decode()}"
    lines = said(b, "-m", manifest)
    assert re.fullmatch(r"since then: 2 of 2 symbols with new names are there, \d of them at .*", lines[1])
    assert line in lines
    subprocess.run(["objcopy", f"--redefine-sym=a.c#helper_{ident(1).hex()}=a.c#helper", b], check=True)
    assert f"symbol gone: a.c#helper_{ident(1).hex()} (undefined)" in said(b, "-m", manifest)


def test_all_symbols_gone(payload: Path) -> None:
    """strip --strip-unneeded removes what nothing refers to."""
    subprocess.run(["strip", "--strip-unneeded", payload], check=True)
    assert "since then: 0 of 5 renamed symbols are there, 0 of them at another index" in said(payload)


def test_no_symbol_table_at_all(payload: Path) -> None:
    subprocess.run(["strip", payload], check=True)
    done = run(["lpmangle", "verify", str(payload)], payload.parent, code=3)
    assert "has no symbol table" in done.stderr


def test_another_payload_is_not_mangled(payload: Path) -> None:
    """Its names are the original ones; nothing was changed since."""
    shutil.copy(ROOT / "examples" / "617712b.livepatch", payload)
    lines = said(payload)
    assert lines[0].endswith(": it is not mangled: it was rebuilt, or is another payload")
    assert lines[1].startswith("build-id is a46b5c175e2839ad0fcd31212d3715bde54b2c28, the manifest says ")
    assert len(lines) == 2


def test_a_byte_changed_in_place_is_told_by_index(payload: Path) -> None:
    data = bytearray(payload.read_bytes())
    data[data.rindex(b"x86_emulate.c#_get_fpu_")] ^= 1
    payload.write_bytes(data)
    lines = said(payload)
    assert any(re.match(r"symbol 9: name is y86_emulate\.c#_get_fpu_\w+, the manifest says ", line) for line in lines)
    assert not [line for line in lines if line.startswith("since then")]
