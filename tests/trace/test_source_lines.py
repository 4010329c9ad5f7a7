"""Source lines and gdb: what a debugger shows of a mangled payload, and of the exported names."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import lpmangle
from debuginfod_server import running
from elfbuild import TEXT, Sym, build, build_id
from livepatch import CFLAGS, HEADER
from toolchain import run as tool

from lpmangle import elf
from lpmangle.store.open import open_sources
from lpmangle.trace.lookup import Lookup
from lpmangle.trace.retrace import Retracer
from lpmangle.trace.source_lines import Lines

CRASH = Path(__file__).parent.parent / "data" / "crash"
SOURCE = """\
#include "livepatch.h"
static int calls;
static __attribute__((noipa)) int _get_fpu(int value)
{
    calls += value;
    if ( value == 7 )
        __asm__ volatile ( "ud2" );
    return calls;
}
static __attribute__((noipa, section(".text.cold"))) int _put_fpu(int value)
{
    return _get_fpu(value) + 1;
}
int lp_global(int value);
int lp_global(int value)
{
    return _get_fpu(value) + _put_fpu(value);
}
"""


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    """A mangled payload with debug information, and its original as `original.livepatch`."""
    (tmp_path / "livepatch.h").write_bytes(HEADER.read_bytes())
    (tmp_path / "fpu.c").write_text(SOURCE)
    tool("gcc", *CFLAGS, "-g", "-c", "-o", "fpu.o", "fpu.c", cwd=tmp_path)
    names = [f"--redefine-sym={name}=fpu.c#{name}" for name in ("_get_fpu", "_put_fpu", "calls")]
    tool("objcopy", *names, "fpu.o", cwd=tmp_path)
    tool("ld", "-r", "--build-id=sha1", "-o", "original.livepatch", "fpu.o", cwd=tmp_path)
    lpmangle("-o", tmp_path / "p.livepatch", tmp_path / "original.livepatch")
    return tmp_path / "p.livepatch"


def symbols(payload: Path) -> dict[str, dict[str, str]]:
    manifest = json.loads(Path(f"{payload}.manifest.json").read_text())
    return {symbol["original"]: symbol for symbol in manifest["symbols"]}


def trap(payload: Path) -> int:
    """The offset of ud2 in _get_fpu."""
    listing = tool("objdump", "-d", "--section=.text", payload.name, cwd=payload.parent)
    match = re.search(r"^ *([0-9a-f]+):.*\bud2", listing, re.MULTILINE)
    assert match
    return int(match[1], 16) - int(symbols(payload)["fpu.c#_get_fpu"]["value"])


def test_source_lines(payload: Path) -> None:
    lines = SOURCE.splitlines()
    get, put = (symbols(payload)[f"fpu.c#{name}"]["name"] for name in ("_get_fpu", "_put_fpu"))
    log = payload.parent / "log"
    log.write_text(f"RIP: {get}+{trap(payload):#x}/0x20 [p]\n{put}+0x0/0x9 [p]\n{get}\n{get}+0xffffff\n")
    done = lpmangle("retrace", "--source-lines", "-m", payload, log)
    fault, begin, bare, outside = done.stdout.splitlines()
    place = re.fullmatch(r"RIP: fpu.c#_get_fpu\+0x\w+/0x20 \[p\] \(.*/fpu\.c:(\d+)\)", fault)
    assert place, fault
    assert "ud2" in lines[int(place[1]) - 1]
    place = re.fullmatch(r"fpu.c#_put_fpu\+0x0/0x9 \[p\] \(.*/fpu\.c:(\d+)\)", begin)
    assert place, begin
    assert lines[int(place[1]) - 1] in ("{", next(line for line in lines if "_put_fpu(int" in line))
    assert bare == "fpu.c#_get_fpu"
    assert outside == "fpu.c#_get_fpu+0xffffff"
    annotated = lpmangle("retrace", "--source-lines", "--annotate", "-m", payload, log).stdout.splitlines()[0]
    assert annotated == fault.replace("_get_fpu+", f"_get_fpu ({get})+")


def test_source_lines_of_a_stripped_payload(payload: Path, tmp_path: Path) -> None:
    """Its debug information is in the file before strip, mangled or not; without that there are no lines."""
    get = symbols(payload)["fpu.c#_get_fpu"]["name"]
    log = tmp_path / "log"
    log.write_text(f"{get}+{trap(payload):#x}/0x20 [p]\n")
    expected = lpmangle("retrace", "--source-lines", "-m", payload, log).stdout
    shutil.copy(tmp_path / "original.livepatch", tmp_path / "debug")
    subprocess.run(["strip", "-g", tmp_path / "original.livepatch"], check=True)
    lpmangle("-o", payload, tmp_path / "original.livepatch")
    assert "fpu.c:" not in lpmangle("retrace", "--source-lines", "-m", payload, log).stdout
    assert lpmangle("retrace", "--debug-file", tmp_path / "debug", "-m", payload, log).stdout == expected
    manifest = Path(f"{payload}.manifest.json").rename(tmp_path / "only.json")
    assert lpmangle("retrace", "--debug-file", tmp_path / "debug", "-m", manifest, log).stdout == expected
    assert "cannot read" in lpmangle("retrace", "--debug-file", tmp_path / "no", "-m", manifest, log, code=4).stderr


def test_source_lines_with_a_catalog(payload: Path, tmp_path: Path) -> None:
    """A catalog has no payloads; a folder has, and they are found by build-id."""
    get = symbols(payload)["fpu.c#_get_fpu"]["name"]
    log = tmp_path / "log"
    log.write_text(f"{get}+{trap(payload):#x}/0x20 [p]\n")
    expected = lpmangle("retrace", "--source-lines", "-m", payload, log).stdout
    assert "fpu.c:" in expected
    lpmangle("catalog", "add", tmp_path / "c.db", payload)
    done = lpmangle("retrace", "--source-lines", "-m", tmp_path / "c.db", log)
    assert (done.stdout, done.stderr) == (f"fpu.c#_get_fpu+{trap(payload):#x}/0x20 [p]\n", "")
    (tmp_path / "debug" / "deep").mkdir(parents=True)
    (tmp_path / "debug" / "damaged.livepatch").write_bytes(b"\x7fELF")
    shutil.copy(CRASH / "crash.livepatch", tmp_path / "debug")
    shutil.copy(tmp_path / "original.livepatch", tmp_path / "debug" / "deep")
    assert lpmangle("retrace", "--debug-file", tmp_path / "debug", "-m", tmp_path / "c.db", log).stdout == expected


def test_source_lines_from_debuginfod(payload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Manifest and debug information from one server; only the debug information, with a catalog."""
    (tmp_path / "server" / "payloads").mkdir(parents=True)
    get = symbols(payload)["fpu.c#_get_fpu"]["name"]
    log = tmp_path / "log"
    log.write_text(f"{get}+{trap(payload):#x}/0x20 [p]\n")
    expected = lpmangle("retrace", "--source-lines", "-m", payload, log).stdout
    lpmangle("catalog", "add", tmp_path / "c.db", payload)
    served = tmp_path / "server" / "payloads" / "p.livepatch"
    lpmangle("--embed", "-o", served, tmp_path / "original.livepatch")
    monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(tmp_path / "cache"))
    monkeypatch.delenv("DEBUGINFOD_URLS", raising=False)
    build_id = get.rpartition("_")[2]
    with running(tmp_path / "server", build_id=build_id) as url:
        assert lpmangle("retrace", "--source-lines", "-m", url, log).stdout == expected
        shutil.rmtree(tmp_path / "cache")
        monkeypatch.setenv("DEBUGINFOD_URLS", url)
        assert lpmangle("retrace", "--source-lines", "-m", tmp_path / "c.db", log).stdout == expected
        found = tool("debuginfod-find", "debuginfo", build_id, cwd=tmp_path).strip()
        assert found == str(tmp_path / "cache" / build_id / "debuginfo")


def test_source_lines_from_a_debug_file(payload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that eu-strip -f, and so RPM's find-debuginfo, splits off has everything: by path, from debuginfod."""
    get = symbols(payload)["fpu.c#_get_fpu"]["name"]
    log = tmp_path / "log"
    log.write_text(f"{get}+{trap(payload):#x}/0x20 [p]\n")
    expected = lpmangle("retrace", "--source-lines", "-m", payload, log).stdout
    assert "fpu.c:" in expected
    served = tmp_path / "server" / "payloads"
    served.mkdir(parents=True)
    lpmangle("--embed", "-o", tmp_path / "q.livepatch", tmp_path / "original.livepatch")
    subprocess.run(["eu-strip", "-f", served / "q.debug", tmp_path / "q.livepatch"], check=True)
    for source in (served / "q.debug", served):
        done = lpmangle("retrace", "--source-lines", "-m", source, log)
        assert (done.stdout, done.stderr) == (expected, "")
    assert lpmangle("retrace", "--debug-file", served, "-m", payload, log).stdout == expected
    monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(tmp_path / "cache"))
    monkeypatch.delenv("DEBUGINFOD_URLS", raising=False)
    with running(tmp_path / "server", build_id=get.rpartition("_")[2]) as url:
        done = lpmangle("retrace", "--source-lines", "-m", url, log)
        assert (done.stdout, done.stderr) == (expected, "")


def test_another_payload_beside_the_manifest(payload: Path, tmp_path: Path) -> None:
    """Lines of another payload would be wrong ones."""
    get = symbols(payload)["fpu.c#_get_fpu"]["name"]
    (tmp_path / "log").write_text(f"{get}+0x1/0x20\n" * 2 + f"{get}+0x2\n")
    shutil.copy(CRASH / "crash.livepatch", payload)
    done = lpmangle("retrace", "--source-lines", "-m", f"{payload}.manifest.json", tmp_path / "log")
    assert done.stdout == "fpu.c#_get_fpu+0x1/0x20\n" * 2 + "fpu.c#_get_fpu+0x2\n"
    assert done.stderr == (
        f"lpmangle: {payload}: warning: is not the payload of its manifest, no source lines from it\n"
    )


def test_without_addr2line(payload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "log").write_text("x\n")
    done = lpmangle("retrace", "--source-lines", "-m", payload, tmp_path / "log")
    assert (done.stdout, done.stderr.count("addr2line: warning: is not installed")) == ("x\n", 1)


TWINS = """\
static __attribute__((noipa)) int f(int value)
{
    %s
    return value;
}
int %s(int value);
int %s(int value)
{
    return f(value);
}
"""


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    """Functions of one name, all of one size except the first, in a payload with debug information."""
    objects = []
    for number, body in enumerate(('__asm__ ( ".fill 40, 1, 0x90" );', "value += 3;", "value += 5;"), 1):
        entry = f"entry{number}"
        (tmp_path / f"twin{number}.c").write_text(TWINS % (body, entry, entry))
        tool("gcc", *CFLAGS, "-g", "-c", "-o", f"twin{number}.o", f"twin{number}.c", cwd=tmp_path)
        tool("objcopy", "--redefine-sym=f=twin.c#f", f"twin{number}.o", cwd=tmp_path)
        objects.append(f"twin{number}.o")
    tool("ld", "-r", "--build-id=sha1", "-o", "twins.livepatch", *objects, cwd=tmp_path)
    lpmangle(tmp_path / "twins.livepatch")
    return tmp_path / "twins.livepatch"


def test_functions_of_one_name(twins: Path) -> None:
    """The size in the trace decides; if it cannot, there is no line rather than a wrong one."""
    manifest = json.loads(Path(f"{twins}.manifest.json").read_text())
    several = [symbol for symbol in manifest["symbols"] if symbol["original"] == "twin.c#f"]
    large, small, other = (int(symbol["size"]) for symbol in several)
    assert large > small == other
    name = several[0]["name"]
    log = twins.parent / "log"
    offsets = [f"+0x0/{large:#x} [twins]", f"+0x0/{small:#x} [twins]", "+0x0/0x123 [twins]", "+0x0", "+0"]
    # An analyser's size is where the next symbol is.
    log.write_text("".join(f"{name}{offset}\n" for offset in offsets) + f"twins.{name}+0/{large:#x}\n")
    lines = lpmangle("retrace", "--source-lines", "-m", twins, log).stdout.splitlines()
    assert re.fullmatch(rf"twin.c#f\+0x0/{large:#x} \[twins\] \(.*/twin1\.c:[12]\)", lines[0])
    assert lines[1:] == [*(f"twin.c#f{offset}" for offset in offsets[1:]), f"twins.twin.c#f+0/{large:#x}"]


def test_payloads_of_one_name(payload: Path, tmp_path: Path) -> None:
    """If two payloads may be meant, a line would be a guess, even if only one of them has a line."""
    shutil.copy(tmp_path / "original.livepatch", tmp_path / "one.livepatch")
    shutil.copy(tmp_path / "original.livepatch", tmp_path / "two.livepatch")
    tool("objcopy", "-g", "two.livepatch", cwd=tmp_path)
    note = ".note.gnu.build-id"
    tool("objcopy", "-O", "binary", f"--only-section={note}", "two.livepatch", "note", cwd=tmp_path)
    content = (tmp_path / "note").read_bytes()
    (tmp_path / "note").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    tool("objcopy", f"--update-section={note}=note", "two.livepatch", cwd=tmp_path)
    (tmp_path / "m").mkdir()
    for name in ("one.livepatch", "two.livepatch"):
        lpmangle("--suffix", "text:v1", "-o", tmp_path / "m" / name, tmp_path / name)
    log = tmp_path / "log"
    log.write_text("fpu.c#_get_fpu_v1+0x0\nfpu.c#_get_fpu_v1+0x0 [one]\nfpu.c#_get_fpu_v1+0x0 [two]\n")
    lines = lpmangle("retrace", "--source-lines", "-m", tmp_path / "m", log).stdout.splitlines()
    assert lines[::2] == ["fpu.c#_get_fpu+0x0", "fpu.c#_get_fpu+0x0 [two]"]
    assert re.fullmatch(r"fpu.c#_get_fpu\+0x0 \[one\] \(.*/fpu\.c:\d+\)", lines[1])


@pytest.mark.parametrize("form", ["+0x{:x}/0x99 [p]", "+{}", "+0x{:x}"])
def test_forms_of_offsets(payload: Path, form: str) -> None:
    """Xen's, gdb's, objdump's."""
    name = symbols(payload)["fpu.c#_get_fpu"]["name"]
    log = payload.parent / "log"
    log.write_text(f"<{name}{form.format(trap(payload))}>\n")
    done = lpmangle("retrace", "--source-lines", "-m", payload, log).stdout
    place = re.search(r"fpu\.c:(\d+)\)", done)
    assert place, done
    assert "ud2" in SOURCE.splitlines()[int(place[1]) - 1]


@pytest.mark.parametrize("offset", ["021x", "0x" + "f" * 16, "0x" + "f" * 17, "9" * 19, "9" * 5000, "0x", ""])
def test_offsets_that_are_none(payload: Path, offset: str) -> None:
    name = symbols(payload)["fpu.c#_get_fpu"]["name"]
    (payload.parent / "log").write_text(f"{name}+{offset}\n{name}+0x0\n")
    done = lpmangle("retrace", "--source-lines", "-m", payload, payload.parent / "log").stdout
    assert done.startswith(f"fpu.c#_get_fpu+{offset}\nfpu.c#_get_fpu+0x0 (")


def test_addr2line_is_started_once_for_each_section(
    payload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """addr2line is not started for each place; and it ends before retrace."""
    real = shutil.which("addr2line")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "addr2line"
    script.write_text(f'#!/bin/sh\necho $$ >>{tmp_path}/started\nexec {real} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    get, put = (symbols(payload)[f"fpu.c#{name}"]["name"] for name in ("_get_fpu", "_put_fpu"))
    (tmp_path / "log").write_text("".join(f"{get}+{offset:#x}\n{put}+{offset:#x}\n" for offset in range(500)))
    done = lpmangle("retrace", "--source-lines", "-m", payload, tmp_path / "log")
    assert done.stdout.count("fpu.c:") > 20
    started = (tmp_path / "started").read_text().split()
    assert len(started) == 2
    assert not any(Path("/proc", number).exists() for number in started)


BAD = {
    "it ends": "exit 1",
    "it ends later": "read a; echo $a; exit 0",
    "it says nothing": "exec sleep 60",
    "it says something else": "while read a; do echo 0x1; echo x.c:1; done",
    "it says no number": "while read a; do echo x; echo y; done",
    "it says too much": "while read a; do echo $a; echo x.c; echo y.c:1; done",
    "it says no text": "while read a; do echo $a; printf '\\033]0;x\\007:1\\n'; done",
}


@pytest.fixture
def bad_addr2line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file for a script that is called instead of addr2line."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "addr2line").touch(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return tmp_path / "bin" / "addr2line"


def with_lines(payload: Path, text: str, *, ahead: bool) -> list[str]:
    """The lines of a text; `ahead`: many places are asked for at once, as the command does."""
    sources = open_sources([str(payload)])
    lookup = Lookup(sources)
    lines = Lines(sources, [], lookup.trouble)
    made = Retracer(lookup, line_of=lines.line_of, prepare=lines.prepare if ahead else None)
    said = made.text(text.encode()).decode().splitlines()
    lines.close()
    assert not lookup.trouble
    return said


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("script", BAD.values(), ids=BAD)
def test_strange_addr2line(
    payload: Path, bad_addr2line: Path, monkeypatch: pytest.MonkeyPatch, script: str, ahead: bool
) -> None:
    """No line, or the right one; the log passes."""
    monkeypatch.setattr("lpmangle.trace.source_lines.TIMEOUT", 0.2)
    bad_addr2line.write_text(f"#!/bin/bash\n{script}\n")
    get = symbols(payload)["fpu.c#_get_fpu"]["name"]
    said = with_lines(payload, "".join(f"{get}+{offset:#x}\n" for offset in range(3, 9)), ahead=ahead)
    for offset, line in enumerate(said, 3):
        assert line in (f"fpu.c#_get_fpu+{offset:#x}", f"fpu.c#_get_fpu+{offset:#x} (x.c)")


def test_a_strange_answer_costs_only_its_own(payload: Path, bad_addr2line: Path) -> None:
    """One place is in a file with a newline in its name: the others have their lines."""
    bad_addr2line.write_text(
        f"#!{sys.executable} -I\nimport os, sys\nfor line in sys.stdin:\n"
        "    os.write(1, line.encode() + (b'x\\ny.c:1\\n' if line == '0x5\\n' else b'x.c:1\\n'))\n"
    )
    get = symbols(payload)["fpu.c#_get_fpu"]
    said = with_lines(payload, "".join(f"{get['name']}+{at:#x}\n" for at in range(300)), ahead=True)
    assert said == [f"fpu.c#_get_fpu+{at:#x}" + " (x.c:1)" * (at != 5) for at in range(300)]


def test_places_are_asked_for_together(payload: Path, bad_addr2line: Path) -> None:
    """Waiting for each answer takes ten times as long. Here the first comes when all have been asked for."""
    bad_addr2line.write_text(
        "#!/bin/bash\nfor i in {1..200}; do read a; said+=$a$'\\n'x.c:1$'\\n'; done; echo -n \"$said\"; exec cat\n"
    )
    get = symbols(payload)["fpu.c#_get_fpu"]["name"]
    said = with_lines(payload, "".join(f"<{get}+{at:#x}>\n" for at in range(200)), ahead=True)
    assert said == [f"<fpu.c#_get_fpu+{at:#x} (x.c:1)>" for at in range(200)]


def test_asking_ahead_changes_nothing(payload: Path, tmp_path: Path) -> None:
    """For more places than are asked for at once, in functions, between and behind them, in all forms."""
    forms = ("S {}+{:#x}/0x33 [p]\n", "<{}+{}>: {}+{:#x} [x_{}+0x1]\n", "{}+{:#x} {}\n", "p.{}+{:#x}/0x99\n")
    text = ""
    for symbol in symbols(payload).values():
        for at in (*range(350), 1 << 31, 1 << 63):
            name = symbol["name"]
            text += forms[at % 4].format(name, at, name, at, name)
    said = with_lines(payload, text, ahead=True)
    assert said == with_lines(payload, text, ahead=False)
    assert sum("fpu.c:" in line for line in said) > 100


def gdb(payload: Path, text: int, *commands: str) -> str:
    """What gdb says with the payload's .text at an address."""
    words = [word for command in (f"add-symbol-file {payload.name} {text:#x}", *commands) for word in ("-ex", command)]
    return tool("gdb", "-nx", "-batch", *words, cwd=payload.parent)


def test_gdb_finds_the_address_of_the_crash(tmp_path: Path) -> None:
    """The address in the real Xen's register dump, looked up in the payload that crashed."""
    shutil.copy(CRASH / "crash.livepatch", tmp_path)
    rip = re.search(r"RIP: .*<(\w+)>\] (\S+)\+0x(\w+)/", (CRASH / "crash.log").read_text())
    assert rip
    address, name, offset = int(rip[1], 16), rip[2], int(rip[3], 16)
    said = gdb(tmp_path / "crash.livepatch", address - offset, f"info symbol {address:#x}")
    assert f"{name} + {offset} in section .text" in said


def test_gdb_on_a_mangled_payload(payload: Path) -> None:
    """`info symbol` shows the new name, `info line` the source; with the exported names, the original."""
    one = symbols(payload)["fpu.c#_get_fpu"]
    base = 0xFFFF82D0405B0000
    address = base + int(one["value"]) + trap(payload)
    assert f"{one['name']} + {trap(payload)} in section .text" in gdb(payload, base, f"info symbol {address:#x}")
    line = re.search(r'Line (\d+) of "fpu\.c"', gdb(payload, base, f"info line *{address:#x}"))
    assert line
    assert "ud2" in SOURCE.splitlines()[int(line[1]) - 1]

    arguments = lpmangle("query", "*", "-m", payload, "--format", "objcopy").stdout
    (payload.parent / "names").write_text(arguments)
    tool("objcopy", "@names", "p.livepatch", "debug.livepatch", cwd=payload.parent)
    assert f"fpu.c#_get_fpu + {trap(payload)} in section .text" in gdb(
        payload.parent / "debug.livepatch", base, f"info symbol {address:#x}"
    )
    names = [tool("nm", "-a", f"{name}.livepatch", cwd=payload.parent).splitlines() for name in ("original", "debug")]
    assert sorted(names[0]) == sorted(names[1])


def test_gdb_on_a_core_file(payload: Path, tmp_path: Path) -> None:
    """A process without symbols crashes in the payload's code; core and payload say where."""
    (tmp_path / "start.c").write_text("int lp_global(int);\nvoid _start(void) { lp_global(7); for ( ; ; ); }\n")
    tool("gcc", "-O1", "-fno-pie", "-c", "-o", "start.o", "start.c", cwd=tmp_path)
    tool("ld", "-static", "-Ttext=0x5a0000", "-o", "host", "p.livepatch", "start.o", cwd=tmp_path)
    one = symbols(payload)["fpu.c#_get_fpu"]
    address = next(line.split()[0] for line in tool("nm", "host", cwd=tmp_path).splitlines() if one["name"] in line)
    base = int(address, 16) - int(one["value"])
    tool("strip", "host", cwd=tmp_path)
    said = tool("gdb", "-nx", "-batch", "-ex", "run", "-ex", "generate-core-file core", "./host", cwd=tmp_path)
    assert "SIGILL" in said
    (tmp_path / "names").write_text(lpmangle("query", "*", "-m", payload, "--format", "objcopy").stdout)
    tool("objcopy", "@names", "p.livepatch", "debug.livepatch", cwd=tmp_path)
    for file, name in (("p.livepatch", one["name"]), ("debug.livepatch", "fpu.c#_get_fpu")):
        commands = [f"add-symbol-file {file} {base:#x}", "info symbol $pc", "x/i $pc", "info line *$pc", "backtrace"]
        words = [word for command in commands for word in ("-ex", command)]
        said = tool("gdb", "-nx", "-batch", *words, "host", "core", cwd=tmp_path)
        assert f"{name} + {trap(payload)} in section .text" in said
        assert re.search(r"=> 0x\w+ <.*>:\s+ud2", said)
        line = re.search(r'Line (\d+) of "fpu\.c"', said)
        assert line
        assert "ud2" in SOURCE.splitlines()[int(line[1]) - 1]
        assert re.search(r"#1 .*lp_global \(value=7\)", said)


def test_mapping_as_json(payload: Path) -> None:
    done = json.loads(lpmangle("query", "*", "-m", payload, "--format", "json").stdout)
    mapping = {match["name"]: match["original"] for match in done["matches"]}
    assert mapping == {symbol["name"]: original for original, symbol in symbols(payload).items()}
    assert lpmangle("query", "*", "-m", payload, "--json").stdout == json.dumps(done, indent=2) + "\n"


def test_objcopy_arguments_are_quoted(tmp_path: Path) -> None:
    """Names with characters that are special in a response file."""
    path = tmp_path / "p.livepatch"
    names = [b"a.c#x y", b"a.c#\\q", b"a.c#it's", b'a.c#"q"', b"a.c#t\tb"]
    path.write_bytes(build([TEXT, build_id()], [Sym(name) for name in names]).data)
    lpmangle("-o", tmp_path / "m.livepatch", path)
    arguments = lpmangle("query", "*", "-m", tmp_path / "m.livepatch", "--format", "objcopy").stdout
    (tmp_path / "names").write_text(arguments)
    tool("objcopy", "@names", "m.livepatch", "back", cwd=tmp_path)
    view = elf.parse((tmp_path / "back").read_bytes())
    assert {view.string(symbol.st_name) for symbol in view.symbols()} - {b""} >= set(names)
