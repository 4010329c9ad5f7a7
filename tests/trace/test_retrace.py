"""Original names put back into text: what is replaced, what is not, and how bytes pass."""

from __future__ import annotations

import os
import random
import re
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import COMMAND, FPU, ID, retracer, run, through
from manifests import manifest, plain, write

from lpmangle.mangle.names import Namer
from lpmangle.manifest.read import decode
from lpmangle.store.open import named_in_environment, open_sources
from lpmangle.trace import retrace
from lpmangle.trace.lookup import Candidate, Lookup
from lpmangle.trace.missed import Missed
from lpmangle.trace.retrace import Retracer

CRASH = Path(__file__).parent.parent / "data" / "crash"


def test_crash_log_of_the_real_xen() -> None:
    """Exactly the names of the manifest are replaced, exactly by their originals."""
    log = (CRASH / "crash.log").read_bytes()
    symbols = decode((CRASH / "crash.livepatch.manifest.json").read_bytes()).symbols
    expected = log
    for symbol in symbols:
        expected = expected.replace(symbol.name.encode(), symbol.original.encode())
    assert expected.count(b" [crash]") == log.count(b" [crash]") == 5
    assert b"] R x86_emulate.c#_get_fpu+0x15/0x1b [crash]\n" in expected
    for source in ("crash.livepatch", "crash.livepatch.manifest.json", "."):
        done = run("-m", CRASH / source, text=log)
        assert done.stdout == expected
        assert done.stderr == b""
    assert run("-m", CRASH, CRASH / "crash.log", "-").stdout == expected


def filled(text: str, name: str, original: str) -> tuple[bytes, bytes]:
    """A text with NAME for the mangled name, or ORIG if that stays; and the expected output."""
    before = text.replace("NAME", name).replace("STAYS", name).replace("ID", ID)
    after = text.replace("NAME", original).replace("STAYS", name).replace("ID", ID)
    return before.encode(), after.encode()


def check_everywhere(made: Retracer, before: bytes, after: bytes) -> None:
    """As a whole, byte by byte, and in all other ways."""
    for _ in range(2):  # before and after the manifest was loaded
        assert made.text(before) == after
    assert through([before[i : i + 1] for i in range(len(before))], made) == after
    made._lookup.simple = False
    assert made.text(before) == after


# What may be around a name in practice. If the suffix is a full build-id, it does not matter.
AROUND = {
    "nothing": "NAME",
    "a line": "NAME\n",
    "a trace of Xen's": "(XEN)    [<ffff82d0405bc032>] R NAME+0x1f/0x24 [p]\n",
    "the registers": "RIP:    e008:[<ffff82d0405bc032>] NAME+0x1f/0x24\n",
    "brackets and quotes": "(NAME) 'NAME' \"NAME\" [NAME] <NAME> `NAME` {NAME} NAME: NAME, NAME; a=NAME|NAME?",
    "blanks": "\tNAME\r\n\0NAME\0\vNAME\f",
    "the end of a sentence": "the end is NAME. Or NAME... NAME.",
    "gdb": "0xffff82d0405b0015 <NAME+21>:\tud2\nNAME + 21 in section .text of p.livepatch",
    "objdump -dr": "0000000000000010 <NAME>:\n  1b:\te8 00\tcall\t20 <NAME+0x10>\n\t\t\t1c: R_X86_64_PLT32\tNAME-0x4\n",
    "nm, readelf": "0000000000000000 t NAME\n     9: 0000000000000000    13 FUNC    LOCAL  DEFAULT    1 NAME\n",
    "syslog's octal": "#011NAME#011NAME#015\n#033[31mNAME#033[0m",
    "a colour": "\x1b[01;31m\x1b[KNAME\x1b[m\x1b[K \x1b[38;5;196mNAME\x1b[0m",
    "a colour in cat -A, in less": "^[[31mNAME^[[0m$\n^INAME^M$\nESC[31mNAMEESC[0m",
    "JSON": '{"MESSAGE":"\\nNAME\\r\\n\\tNAME\\u0009NAME\\u001b[31mNAME\\"NAME\\""}',
    "C and Python": "\\x09NAME\\x0a \\011NAME\\012 \\xa0NAME",
    "a URL": "q=%20NAME%20&q=%3CNAME%3E",
    "HTML": "&nbsp;NAME&nbsp;&lt;NAME&gt;&#9;NAME<br>",
    "typographic quotes": "\u201cNAME\u201d \u2018NAME\u2019 \u201eNAME\u201c «NAME»",
    "other quotes": "\u2039NAME\u203a \u300cNAME\u300d\uff08NAME\uff09",
    "other blanks": "\u00a0NAME\u00a0 \u2009NAME\u202f\u3000NAME\u3000\ufeffNAME",
    "dashes and dots": "\u2014NAME\u2014 \u2013NAME\u2013 \u2026NAME\u2026 \u2022NAME\u2192NAME",
    "frames": "└─NAME\n├──NAME│NAME\n",
    "arrows": "NAME->NAME=>NAME NAME-->NAME",
    "perf": "    |          --99%--NAME\n",
    "a diff": "-NAME\n+NAME\n--NAME\n",
}


@pytest.mark.parametrize("text", AROUND.values(), ids=AROUND)
def test_around_a_name(tmp_path: Path, text: str) -> None:
    made = retracer(tmp_path, plain("p", FPU, "lp_helper"))
    check_everywhere(made, *filled(text, f"{FPU}_{ID}", FPU))
    assert not any(made.missed.times.values())


@pytest.mark.parametrize("text", AROUND.values(), ids=AROUND)
@pytest.mark.parametrize("suffix", ["v1", "hotfix-7", "0123456789ab"])
@pytest.mark.parametrize("original", ["f", FPU])
def test_around_a_name_with_a_suffix_that_is_not_unique(tmp_path: Path, text: str, suffix: str, original: str) -> None:
    made = retracer(tmp_path, manifest("p", {original: f"{original}_{suffix}"}, suffix=suffix))
    check_everywhere(made, *filled(text, f"{original}_{suffix}", original))


AROUND_UNIQUE = {
    "grep -C": "console.log-12-NAME\n",
    "a crash dump's analyser": "\t [ffff82d0405bc032] p.NAME+0x1f/0x24\n\t  ffff82d0405bc032  p.NAME+0/0x24\n",
    "a crash dump's analyser, another payload name": "  ffff82d0405bc032  renamed.since.NAME+0/0x24\n",
    "paths and versions": "a/NAME NAME/1 NAME@1 NAME-1 NAME~ NAME$ #NAME NAME#x NAME@plt",
    "letters": "xNAME 1NAME _NAME äNAME NAMEä",
    "no text": "\udcffNAME NAME\udcc3\udcff",
}


@pytest.mark.parametrize("text", AROUND_UNIQUE.values(), ids=AROUND_UNIQUE)
@pytest.mark.parametrize("suffix", [ID, ID[:12], ID[:7]])
def test_around_a_name_with_a_unique_suffix(tmp_path: Path, text: str, suffix: str) -> None:
    """The suffix is the payload's build-id or its start; after a part of it, the word must still end."""
    name = f"{FPU}_{suffix}"
    made = retracer(tmp_path, manifest("p", {FPU: name}, suffix=suffix))
    before, after = (text.replace("NAME", new).encode("utf-8", "surrogateescape") for new in (name, FPU))
    if suffix == ID:
        check_everywhere(made, before, after)
    else:
        begins = [part for part in text.split() if part.endswith("NAME")]
        for part in begins:
            assert made.text(part.replace("NAME", name).encode("utf-8", "surrogateescape")) == part.replace(
                "NAME", FPU
            ).encode("utf-8", "surrogateescape")


STAYS = {
    "the name goes on": "STAYSx STAYS1 STAYS_ STAYS_x STAYS.cold STAYS.cold.1. STAYS..x STAYS$x",
    "twice": "NAME STAYSNAME NAME STAYS_NAME",
    "another name": "_get_fpu_ID x86_emulate.c#_get_fp_ID _ID ID",
    "other bytes": "\n\n",
    "nothing": "",
}


@pytest.mark.parametrize("text", STAYS.values(), ids=STAYS)
def test_only_whole_symbols(tmp_path: Path, text: str) -> None:
    made = retracer(tmp_path, plain("p", FPU, "lp_helper"))
    check_everywhere(made, *filled(text, f"{FPU}_{ID}", FPU))


@pytest.mark.parametrize(
    "text",
    [
        "xSTAYS STAYSx _STAYS STAYS_ 1STAYS STAYS1 STAYS.cold STAYS.1",
        "a/STAYS a-STAYS a.STAYS a#STAYS a~STAYS a@STAYS STAYS-1 STAYS/1 STAYS@1 STAYS~ STAYS$ STAYS#x #STAYS",
        "äSTAYS STAYSä",
        "q.STAYS xp.STAYS p..STAYS",
    ],
)
def test_only_whole_words_with_a_suffix_that_is_not_unique(tmp_path: Path, text: str) -> None:
    """Such a suffix may be the end of any word, so a part of another word is not a name."""
    made = retracer(tmp_path, manifest("p", {"f": "f_v1"}, suffix="v1"))
    check_everywhere(made, *filled(text, "f_v1", "f"))


def test_longest_name(tmp_path: Path) -> None:
    """If several known names end there, the longest is meant, whatever precedes it."""
    names = ("fpu", "get_fpu", "a.c#get_fpu", "arch/a.c#get_fpu")
    made = retracer(tmp_path, plain("p", *names), annotate=True)
    for name in names:
        for before in ("", "x.", "-"):
            text = f"{before}{name}_{ID}+0x1".encode()
            assert made.text(text) == f"{before}{name} ({name}_{ID})+0x1".encode()


def test_names_with_unusual_characters(tmp_path: Path) -> None:
    """A suffix may be any printable text; names with it are found, but not as a part of another."""
    suffix, base = "v1+2,(x)", {"a.c#f": "a.c#f_v1+2,(x)", "a.c#g": "a.c#g_v1+2,(x)"}
    one = manifest("p", base, suffix=suffix)
    two = manifest("q", {"a.c#f": "a.c#f_v1"}, suffix="v1")
    made = retracer(tmp_path, one, two)
    assert made.text(b"<a.c#f_v1+2,(x)+0x1/0x2 [p]> a.c#f_v1+0x3") == b"<a.c#f+0x1/0x2 [p]> a.c#f+0x3"
    assert made.text(b"xa.c#f_v1+2,(x) a.c#g_v1+2,(x)y") == b"xa.c#f_v1+2,(x) a.c#g_v1+2,(x)y"


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{name}_{suffix}", "f_SUFFIX"),
        ("{suffix}.{symbol}", "SUFFIX.a.c#f"),
        ("{symbol}{suffix}", "a.c#fSUFFIX"),
        ("{suffix}{name}", "SUFFIXf"),
        ("{file}#{name}.{suffix}.x", "a.c#f.SUFFIX.x"),
        ("{file}_{suffix}#{name}", "a.c_SUFFIX#f"),
        ("{file}-{suffix}{name}", "a.c-SUFFIXf"),
    ],
)
@pytest.mark.parametrize("suffix", ["abcdef0", ID, "v1"])
def test_other_forms_of_names(tmp_path: Path, template: str, name: str, suffix: str) -> None:
    name = name.replace("SUFFIX", suffix)
    options = dict(plain("p")["options"], template=template)
    made = retracer(tmp_path, manifest("p", {"a.c#f": name}, suffix=suffix, options=options))
    text = f"(XEN) {name}+0x1/0x2 ({name}) {name}y\n<{name}>\n{name}"
    expected = text.replace(name, "a.c#f").replace("a.c#fy", f"{name}y").encode()
    check_everywhere(made, text.encode(), expected)


@pytest.mark.parametrize("original", ["a.c#f.cold", "once", "add", "abcdef0123456789" * 3, "a.c#dead"])
@pytest.mark.parametrize(
    "template", ["{symbol}{suffix}", "{suffix}{symbol}", "{symbol}{suffix}.x", "x.{suffix}{symbol}"]
)
@pytest.mark.parametrize("suffix", [ID, ID[:12], "v1"])
def test_nothing_between_name_and_suffix(tmp_path: Path, original: str, template: str, suffix: str) -> None:
    """Names that end or begin with hexadecimal digits; and no build-id is reported that does not exist."""
    name = template.format(symbol=original, suffix=suffix)
    options = dict(plain("p")["options"], template=template)
    made = retracer(tmp_path, manifest("p", {original: name}, suffix=suffix, options=options))
    text = f"(XEN) {name}+0x1/0x2 [p]\n{name}\n({name})".encode()
    check_everywhere(made, text, text.replace(name.encode(), original.encode()))
    assert not made.missed.unknown
    assert not any(made.missed.times.values())


def test_a_suffix_in_a_suffix(tmp_path: Path) -> None:
    """If a name looks like those of two payloads, each has its own; a name that both have is ambiguous."""
    made = retracer(
        tmp_path,
        manifest("one", {"f": "f_v1", "g_2": "g_2_v1", "h": "h_v1"}, suffix="v1"),
        manifest("two", {"f": "f_2_v1", "g": "g_2_v1"}, suffix="2_v1"),
    )
    text = b"f_v1 f_2_v1 g_2_v1 [two] g_2_v1 [one] h_v1 g_2_v1\n"
    check_everywhere(made, text, b"f f g [two] g_2 [one] h g_2_v1\n")


def test_two_symbols_of_one_name(tmp_path: Path) -> None:
    """In one payload, with different originals: it is ambiguous."""
    one = manifest("p", {"a.c#f": "f_v1", "b.c#f": "f_v1", "b.c#g": "g_v1"}, suffix="v1")
    check_everywhere(retracer(tmp_path, one), b"f_v1 [p] g_v1 [p]", b"f_v1 [p] b.c#g [p]")


def test_cut_by_xen(tmp_path: Path) -> None:
    """A manifest of another tool may have names of more than 126 bytes."""
    long = "a.c#" + "f" * 60 + "_" + ID + "." + "g" * 60
    one = manifest("p", {"a.c#f": long}, options=dict(plain("p")["options"], template="{symbol}_{suffix}." + "g" * 60))
    made = retracer(tmp_path, one)
    assert made.text(long.encode()[:126] + b"+0x1 " + long.encode()) == b"a.c#f+0x1 a.c#f"


def test_ambiguous(tmp_path: Path) -> None:
    """One name, several originals: the payload on the line decides, or the name stays."""
    one, two = (manifest(p, {f"{p}.c#f": "f_v1"}, suffix="v1") for p in ("one", "two"))
    write(tmp_path / "m", one, two)
    text = b"f_v1+0x1/0x2 [one] f_v1 [two]\nf_v1 [three]\nf_v1\n[two]: f_v1+0x1\n"
    done = run("-m", tmp_path / "m", text=text)
    assert done.stdout == b"one.c#f+0x1/0x2 [one] two.c#f [two]\nf_v1 [three]\nf_v1\n[two]: two.c#f+0x1\n"
    lines = done.stderr.decode().splitlines()
    assert lines[0] == "lpmangle: f_v1 has several meanings and is left as it is:"
    assert [line.split(",")[0] for line in lines[1:]] == ["  one.c#f: one", "  two.c#f: two"]


def test_prefix_decides(tmp_path: Path) -> None:
    """xen-crashdump-analyser prints PAYLOAD.NAME; a payload's name may have dots."""
    several = [manifest(p, {f"{p}.c#f": "f_v1"}, suffix="v1") for p in ("one", "two", "hot.fix")]
    made = retracer(tmp_path, *several)
    text = (
        b" ffff82d0405bc032  one.f_v1+0x1f/0x30\n [ffff82d0405bc032] two.f_v1+0/0x30\nhot.fix.f_v1 xone.f_v1 fix.f_v1\n"
    )
    expected = text.replace(b" one.f_v1", b" one.one.c#f").replace(b"two.f_v1", b"two.two.c#f")
    check_everywhere(made, text, expected.replace(b"hot.fix.f_v1", b"hot.fix.hot.fix.c#f"))
    text = f"one.f_{ID} [two]\n".encode()  # this one is nearer to the name
    made = retracer(tmp_path / "2", *(manifest(p, {f"{p}.c#f": f"f_{ID}"}, suffix=ID) for p in ("one", "two")))
    check_everywhere(made, text, b"one.one.c#f [two]\n")


def test_same_meaning_twice_is_not_ambiguous(tmp_path: Path) -> None:
    one, two = (manifest(p, {"x.c#f": "x.c#f_v1"}, suffix="v1") for p in ("one", "two"))
    folder = write(tmp_path / "m", one, two)
    done = run("-m", folder, "-m", folder, text=b"x.c#f_v1 x.c#f_v1 [two]\n")
    assert (done.stdout, done.stderr) == (b"x.c#f x.c#f [two]\n", b"")


def test_annotate(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", plain("p", FPU))
    text = f"S {FPU}_{ID}+0x1/0x2 [p]\n".encode()
    expected = f"S {FPU} ({FPU}_{ID})+0x1/0x2 [p]\n".encode()
    assert run("--annotate", "-m", folder, text=text).stdout == expected


def test_unknown_names_are_reported(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", plain("p", FPU))
    other = "0123456789" * 4
    text = f"\na_{other} b_{other}+0x1 {FPU}_{ID} deadbeef {'a' * 40}".encode()
    done = run("-m", folder, text=text)
    assert done.stdout == text.replace(f"{FPU}_{ID}".encode(), FPU.encode())
    assert done.stderr.decode().splitlines() == [
        "lpmangle: 2 names with 1 build-id in no manifest:",
        f"  {other}: 2, such as a_{other} (line 2)",
        "  hint: name the manifests of these payloads with -m",
    ]


ORIGINALS = st.builds(
    "{}{}".format,
    st.sampled_from(["", "a.c#", "arch/x86/pv/ro-page-fault.c#", "ä.c#"]),
    st.from_regex(r"[A-Za-z_.][A-Za-z0-9_.$]{0,130}", fullmatch=True),
)
TEXT = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([b" ", b"\n", b"\r\n", b"+0x1/0x2 [p]", b"(", b")", b".", b"_", b"x", b"\xff", b"\0", b" [q] "]),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(ORIGINALS, min_size=1, max_size=4, unique=True),
    st.lists(st.tuples(TEXT, st.integers(0, 3)), max_size=12),
    st.sampled_from(["{symbol}_{suffix}", "{suffix}.{symbol}", "{symbol}@{suffix}"]),
    st.sampled_from([ID, ID[:9], "hotfix-7", "v1+2"]),
    st.integers(1, 300),
)
def test_retrace_undoes_mangle(
    tmp_path_factory: pytest.TempPathFactory,
    originals: list[str],
    parts: list[tuple[bytes, int]],
    template: str,
    suffix: str,
    size: int,
) -> None:
    """Any text with new names becomes the text with the old ones, if names are bounded."""
    namer = Namer(template, suffix)
    names = {original: namer.rename(original.encode()).decode() for original in originals}
    if len(set(names.values())) < len(names):
        return
    options = dict(plain("p")["options"], template=template)
    folder = write(tmp_path_factory.mktemp("m"), manifest("p", names, suffix=suffix, options=options))
    made = Retracer(Lookup(open_sources([str(folder)])))
    mangled, plain_text = b"", b""
    for noise, index in parts:
        original = originals[index % len(originals)]
        mangled += noise + b"|" + names[original].encode() + b"\t"
        plain_text += noise + b"|" + original.encode() + b"\t"
    assert through((mangled[i : i + size] for i in range(0, len(mangled), size)), made) == plain_text
    # What merely contains a name stays as it is.
    inside = b"".join(b"x" + names[original].encode() + b"y " for original in originals)
    assert through([inside], made) == inside


def test_long_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of a long line give the same as the whole line, wherever they are cut, and the same counts."""
    several = [
        plain("p", FPU, "lp_helper"),
        *(manifest(payload, {f"{payload}.c#f": "f_v1"}, suffix="v1") for payload in ("one", "two")),
        manifest("q", {"g": "v2.g"}, suffix="v2", options=dict(plain("q")["options"], template="{suffix}.{symbol}")),
    ]
    made = retracer(tmp_path, *several)
    rng = random.Random(seed := int(os.environ.get("LPMANGLE_SEED", "7")))
    print(f"seed: LPMANGLE_SEED={seed}")
    names = [f"{FPU}_{ID}", f"lp_helper_{ID}", "f_v1", "v2.g", f"lp_helpe_{ID}", f"x_{'0' * 40}"]
    words = [name.encode() for name in names] * 2 + [b" ", b"->", b"+0x1/0x2 [one] ", b" [two]", b" " * 999]
    for _ in range(60):
        text = b""
        while len(text) < 60_000:
            text += rng.choice([*words, b"x" * rng.choice([1, 1000, 3000, 9000])])
        with monkeypatch.context() as patch:
            made.missed = Missed()
            whole = made.text(text)
            missed, made.missed = made.missed, Missed()
            patch.setattr(retrace, "MAX_LINE", 100)
            chunks, at = [], 0
            while at < len(text):
                chunks.append(text[at : at + rng.choice([1, 100, 5000, 30_000])])
                at += len(chunks[-1])
            assert through(chunks, made) == whole != text
            assert (made.missed.times, made.missed.unknown_times) == (missed.times, missed.unknown_times)
            assert made.missed.unknown_times
            assert through([*chunks, b"\n", text], made) == whole + b"\n" + whole


@pytest.mark.parametrize("behind", [0, 1, 30, 66, 67, 200])
def test_name_where_a_long_line_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: int) -> None:
    monkeypatch.setattr(retrace, "MAX_LINE", 100)
    made = retracer(tmp_path, plain("p", FPU))
    name = f"{FPU}_{ID}".encode()
    for limit in (8192, 8192 + 1024):
        text = b"x" * 20_000 + name + b"," * (limit - behind)
        assert through([text, b"y"], made) == text.replace(name, FPU.encode()) + b"y"


def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    """40 MB in a single line, and in many, with 30 MiB for all data."""
    folder = write(tmp_path / "m", plain("p", FPU))
    script = "import sys; data = bytes.fromhex(sys.argv[1]) * 1000\nfor _ in range(40): sys.stdout.buffer.write(data)"
    for unit in (b"x" * 1000, f" {FPU}_{ID}".encode() * 15, f"{FPU}_{ID}\n".encode() * 15):
        command = [sys.executable, "-c", script, unit.hex()]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as feeder:
            done = subprocess.run(
                [*COMMAND, "-m", folder],
                stdin=feeder.stdout,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (30 << 20, 30 << 20)),
            )
        assert done.returncode == 0, done.stderr


def _following(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [*COMMAND, "-m", folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    with process:
        yield process
        process.kill()


def _read(process: subprocess.Popen[bytes], seconds: float = 20) -> bytes:
    assert process.stdout is not None
    return os.read(process.stdout.fileno(), 1 << 16) if select.select([process.stdout], [], [], seconds)[0] else b""


@pytest.mark.parametrize("end", ["eof", "interrupt", "closed pipe"])
def test_line_by_line_as_it_comes(tmp_path: Path, end: str) -> None:
    folder = write(tmp_path / "m", plain("p", FPU))
    for process in _following(folder):
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(f"{number} {FPU}_{ID}\nunfin".encode())
            assert _read(process).endswith(f"{number} {FPU}\n".encode())
            process.stdin.write(b"ished\n")
            assert _read(process) == b"unfinished\n"
        if end == "interrupt":
            process.send_signal(signal.SIGINT)
        elif end == "closed pipe":
            process.stdout.close()
            process.stdin.write(b"more\n")
        else:
            process.stdin.write(b"no newline")
            process.stdin.close()
            assert _read(process) == b"no newline"
        assert process.wait(20) == {"eof": 0, "interrupt": 130, "closed pipe": 0}[end]
        assert process.stderr is not None
        assert process.stderr.read().strip() == b""


def test_manifests_are_loaded_when_they_are_met(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", *(plain(f"p{n}", "a.c#f") for n in range(20)))
    lookup = Lookup(open_sources([str(folder)]))
    made = Retracer(lookup)
    assert not lookup.plain
    one = plain("p3", "a.c#f")["symbols"][0]["name"].encode()
    assert made.text(one) == b"a.c#f"
    assert lookup.plain == {one}
    assert lookup.candidates(one) == [
        Candidate(b"a.c#f", "p3", plain("p3")["build_id"], str(next(folder.glob("p3-*"))))
    ]


def test_many_suffixes(tmp_path: Path) -> None:
    """Thousands of suffixes that are not build-ids are distinguished, the longest first."""
    suffixes = [f"hotfix-{n}" for n in range(3000)]
    folder = write(tmp_path / "m", *(manifest(s, {"a.c#f": f"a.c#f_{s}"}, suffix=s) for s in suffixes))
    made = Retracer(Lookup(open_sources([str(folder)])))
    text = " ".join(f"a.c#f_{s}+0x1 a.c#f_{s}x" for s in suffixes).encode()
    assert made.text(text) == re.sub(rb"_hotfix-\d+\+", b"+", text)


def test_quick_way_is_the_careful_way(tmp_path: Path) -> None:
    """Known, unknown and ambiguous names side by side, with and without blanks: both ways give the same."""
    several = [
        plain("p", FPU, "lp_helper"),
        plain("q", "b.c#g"),
        *(manifest(p, {f"{p}.c#f": "f_v1"}, suffix="v1") for p in ("one", "two")),
    ]
    names = [symbol["name"] for one in several for symbol in one["symbols"]]
    words = [
        *names,
        *names,
        f"lp_helper_{'0' * 40}",
        " ",
        " ",
        " ",
        "\n",
        "\n",
        "(",
        ".",
        "...",
        "x",
        "+0x1/0x2 [two]",
        " [p]",
    ]
    rng = random.Random(seed := int(os.environ.get("LPMANGLE_SEED", "7")))
    print(f"seed: LPMANGLE_SEED={seed}")
    quick, careful = (retracer(tmp_path, *several) for _ in range(2))
    replaced = 0
    for _ in range(3000):
        text = "".join(rng.choices(words, k=rng.randrange(1, 12))).encode()
        quick._lookup.simple, careful._lookup.simple = True, False
        out = quick.text(text)
        assert out == careful.text(text), text
        replaced += out != text
    assert 500 < replaced < 3000
    assert quick._lookup.simple
    assert quick.missed.unknown == careful.missed.unknown
    assert quick.missed.times == careful.missed.times


def test_names_of_payloads_below(tmp_path: Path) -> None:
    """A stacked payload's manifest has borrowed names: with the same meaning, but without a place of their own."""
    below = plain("p", FPU)
    name = below["symbols"][0]["name"]
    against = {"payload": "p", "build_id": ID, "template": "{symbol}_{suffix}", "suffix": ID}
    reference = {"index": 9, "original": FPU, "name": name, "st_name": 1, "build_id": ID}
    above = {**plain("q", "b.c#g"), "against": [against], "references": [reference]}
    made = retracer(
        tmp_path, below, above, line_of=lambda found, spot: f"p.c:{spot.offset}" if found.payload == "p" else None
    )
    text = f"S {name}+0x7/0x9 b.c#g_{above['suffix']}\n".encode()
    assert made.text(text) == f"S {FPU}+0x7/0x9 (p.c:7) b.c#g\n".encode()
    assert made._lookup.simple
    only_above = Retracer(Lookup(open_sources([str(next((tmp_path / "m").glob("q-*")))])))
    assert only_above.text(text) == f"S {FPU}+0x7/0x9 b.c#g\n".encode()


def test_damaged_manifest_in_a_folder(tmp_path: Path) -> None:
    """A truncated manifest is reported, and the others are still used."""
    whole = write(tmp_path / "m", plain("p", FPU), manifest("q", {"b.c#g": "b.c#g_v1"}, suffix="v1"))
    for one in (plain("cut", "c.c#h"), manifest("cut2", {"c.c#h": "c.c#h_v1"}, suffix="v1")):
        path = next(write(tmp_path / "n", one).glob(f"{one['payload']}-*"))
        (whole / path.name).write_bytes(path.read_bytes()[:-20])
    name = f"c.c#h_{plain('cut')['build_id']}"
    done = run("-m", whole, text=f"{FPU}_{ID} b.c#g_v1 {name}\n".encode())
    assert done.stdout == f"{FPU} b.c#g {name}\n".encode()
    assert done.stderr.count(b": warning: left out: not a manifest of lpmangle: ") == 2


def test_no_sources() -> None:
    assert b"no manifests to search" in run(code=2).stderr
    assert b"no-such-log" in run("-m", CRASH, "no-such-log", code=4).stderr


@pytest.mark.parametrize(
    ("redirection", "words"),
    [
        (">/dev/full", "lpmangle: cannot print: No space left on device\n"),
        (">&-", "lpmangle: cannot print: Bad file descriptor\n"),
        ("<&-", "lpmangle: -: cannot read: Bad file descriptor\n"),
    ],
)
def test_streams_that_fail(redirection: str, words: str, tmp_path: Path) -> None:
    """The stream that failed is named, and no other file is used in place of a closed stream."""
    (tmp_path / "log").write_text("some text\n")
    command = f"exec {sys.executable} -m lpmangle retrace -m {CRASH} - <log {redirection}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (4, "", words)


def test_sources_from_the_environment(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", plain("p", FPU))
    environment = {**os.environ, "LPMANGLE_MANIFESTS": f"{CRASH}:{folder}", "DEBUGINFOD_URLS": ""}
    done = subprocess.run(COMMAND, input=f"{FPU}_{ID}".encode(), capture_output=True, env=environment)
    assert (done.stdout, done.stderr) == (FPU.encode(), b"")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []),
        (":", []),
        ("/a::b c:", ["/a", "b c"]),
        ("http://h", ["http://h"]),
        ("http://h:8002", ["http://h:8002"]),
        ("/a:http://h:8002:/b", ["/a", "http://h:8002", "/b"]),
        ("http://h:/b", ["http://h", "/b"]),
        ("https://h:8002/x/y:http://[::1]:80/:b", ["https://h:8002/x/y", "http://[::1]:80/", "b"]),
        ("http://h/x:/8002:9", ["http://h/x", "/8002", "9"]),
        ("HTTP://h:80:file:///srv/tree:/b", ["HTTP://h:80", "file:///srv/tree", "/b"]),
        ("http://me:word@h:80/x:/b", ["http://me:word@h:80/x", "/b"]),
    ],
)
def test_urls_in_the_environment(value: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPMANGLE_MANIFESTS", value)
    assert named_in_environment() == expected


def test_loads_nothing_that_it_does_not_use() -> None:
    code = f"""
import sys
from lpmangle.cli import retrace
from lpmangle.store.open import open_sources
open_sources([{str(CRASH)!r}])
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"lief", "sqlite3", "urllib.request", "lpmangle.trace.source_lines", "pickle"} & set(done.stdout.split())
