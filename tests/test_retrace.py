"""Names in text back to the originals: what is replaced, what is not, and how the bytes come and go."""

from __future__ import annotations

import hashlib
import os
import random
import re
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import manifest, plain, write

from lpmangle.mangle.names import Namer
from lpmangle.manifest.read import decode
from lpmangle.store.open import named_in_environment, open_sources
from lpmangle.trace import retrace
from lpmangle.trace.lookup import MAX_RUN, Candidate, Lookup
from lpmangle.trace.retrace import Retracer, blocks

CRASH = Path(__file__).parent / "data" / "crash"
ID = hashlib.sha1(b"p").hexdigest()
FPU = "x86_emulate.c#_get_fpu"
COMMAND = [sys.executable, "-m", "lpmangle", "retrace"]


def retracer(tmp_path: Path, *manifests: dict[str, Any], **options: Any) -> Retracer:
    return Retracer(Lookup(open_sources([str(write(tmp_path / "m", *manifests))])), **options)


def through(chunks: Iterable[bytes], made: Retracer) -> bytes:
    return b"".join(map(made.translate, blocks(iter(chunks))))


def run(*args: str | Path, text: bytes = b"", code: int = 0) -> subprocess.CompletedProcess[bytes]:
    environment = {k: v for k, v in os.environ.items() if k not in ("LPMANGLE_MANIFESTS", "DEBUGINFOD_URLS")}
    done = subprocess.run([*COMMAND, *map(str, args)], input=text, capture_output=True, env=environment)
    assert b"Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stderr
    return done


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"NAME", b"ORIG"),
        (b"NAME\n", b"ORIG\n"),
        (b"NAME+0x1f/0x24 [p]", b"ORIG+0x1f/0x24 [p]"),
        (b"(NAME) 'NAME' \"NAME\" [NAME] <NAME> NAME: NAME, NAME; a=NAME|NAME", None),
        (b"\tNAME\r\n\0NAME\0", None),
        (b"the end is NAME. Or NAME... NAME.", None),
        (b"NAME NAMENAME NAME", b"ORIG NAMENAME ORIG"),
        (b"NAMEx", b"NAMEx"),
        (b"xNAME", b"xNAME"),
        (b"a/NAME", b"a/NAME"),
        (b"NAME.cold", b"NAME.cold"),
        (b"NAME.cold.1.", b"NAME.cold.1."),
        (b"NAME-1 NAME/1 NAME@1 NAME~ NAME$ NAME#x #NAME", b"NAME-1 NAME/1 NAME@1 NAME~ NAME$ NAME#x #NAME"),
        (b"\xffNAME NAME\xc3\xa4", b"\xffNAME NAME\xc3\xa4"),
        (b"\xff NAME \xfe\n\xc3", b"\xff ORIG \xfe\n\xc3"),
        (b"NAME_NAME", b"NAME_NAME"),
        (b"", b""),
        (b"\n\n", b"\n\n"),
        (b"_get_fpu_ID x86_emulate.c#_get_fp_ID _ID ID", b"_get_fpu_ID x86_emulate.c#_get_fp_ID _ID ID"),
    ],
)
def test_only_whole_symbols(tmp_path: Path, text: bytes, expected: bytes | None) -> None:
    name = f"{FPU}_{ID}".encode()
    text = (
        text.replace(b"NAME", name).replace(b"ID", ID.encode()) if b"NAME" not in text else text.replace(b"NAME", name)
    )
    if expected is None:
        expected = text.replace(name, FPU.encode())
    expected = expected.replace(b"NAME", name).replace(b"ORIG", FPU.encode()).replace(b"ID", ID.encode())
    made = retracer(tmp_path, plain("p", FPU, "lp_helper"))
    for _ in range(2):  # before and after the manifest was loaded
        assert b"".join(made.block(text)) == expected
    # All sizes of chunks, and a line limit so small that every line is long.
    assert through([text], made) == expected
    assert through([text[i : i + 1] for i in range(len(text))], made) == expected


def test_names_with_unusual_characters(tmp_path: Path) -> None:
    """A suffix may be any printable text; names with it are found, and not where they are part of another."""
    suffix, base = "v1+2,(x)", {"a.c#f": "a.c#f_v1+2,(x)", "a.c#g": "a.c#g_v1+2,(x)"}
    one = manifest("p", base, suffix=suffix)
    two = manifest("q", {"a.c#f": "a.c#f_v1"}, suffix="v1")
    made = retracer(tmp_path, one, two)
    assert b"".join(made.block(b"<a.c#f_v1+2,(x)+0x1/0x2 [p]> a.c#f_v1+0x3")) == b"<a.c#f+0x1/0x2 [p]> a.c#f+0x3"
    assert b"".join(made.block(b"xa.c#f_v1+2,(x) a.c#g_v1+2,(x)y")) == b"xa.c#f_v1+2,(x) a.c#g_v1+2,(x)y"


def test_other_forms_of_names(tmp_path: Path) -> None:
    options = {"suffix": "x", "scope": "local", "only": [], "keep": []}
    forms = {
        "{name}_{suffix}": "f_abcdef0",
        "{suffix}.{symbol}": "abcdef0.a.c#f",
        "{symbol}{suffix}": "a.c#fabcdef0",
        "{file}#{name}.{suffix}.x": "a.c#f.abcdef0.x",
    }
    for number, (template, name) in enumerate(forms.items()):
        one = manifest("p", {"a.c#f": name}, suffix="abcdef0", options={**options, "template": template})
        (tmp_path / str(number)).mkdir()
        made = retracer(tmp_path / str(number), one)
        text = f"(XEN) {name}+0x1/0x2 ({name}) {name}y x{name}".encode()
        assert b"".join(made.block(text)) == f"(XEN) a.c#f+0x1/0x2 (a.c#f) {name}y x{name}".encode(), template


def test_cut_by_xen(tmp_path: Path) -> None:
    """A manifest of another tool may hold names of more than 126 bytes."""
    long = "a.c#" + "f" * 60 + "_" + ID + "." + "g" * 60
    one = manifest("p", {"a.c#f": long}, options=dict(plain("p")["options"], template="{symbol}_{suffix}." + "g" * 60))
    made = retracer(tmp_path, one)
    assert b"".join(made.block(long.encode()[:126] + b"+0x1 " + long.encode())) == b"a.c#f+0x1 a.c#f"


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
    text = f"a_{other} b_{other}+0x1 {FPU}_{ID} c_{ID} deadbeef {'a' * 40}".encode()
    done = run("-m", folder, text=text)
    assert done.stdout == text.replace(f"{FPU}_{ID}".encode(), FPU.encode())
    lines = done.stderr.decode().splitlines()
    assert lines[0] == "lpmangle: 2 names with 1 build-id in no manifest:"
    assert lines[1] == f"  {other}: 2, such as b_{other}"


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
    """In any text, the text with the new names becomes the text with the old ones: where a name is bounded."""
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
    """Pieces of a long line give what the whole line gives, wherever they are cut."""
    monkeypatch.setattr(retrace, "MAX_LINE", 100)
    made = retracer(tmp_path, plain("p", FPU, "lp_helper"))
    rng = random.Random(seed := int(os.environ.get("LPMANGLE_SEED", "7")))
    print(f"seed: LPMANGLE_SEED={seed}")
    names = [f"{FPU}_{ID}".encode(), f"lp_helper_{ID}".encode()]
    for _ in range(60):
        text = b""
        while len(text) < 60_000:
            text += rng.choice([*names, *names, b" ", b"x" * rng.choice([1, 3000, 9000]), b"+0x1/0x2 [p] ", b" " * 999])
        whole = b"".join(made.block(text))
        assert whole != text
        chunks, at = [], 0
        while at < len(text):
            chunks.append(text[at : at + rng.choice([1, 100, 5000, 30_000])])
            at += len(chunks[-1])
        assert through(chunks, made) == whole


def test_long_run_cut_right_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a run of name characters is cut nothing begins: what follows is still a part of it."""
    monkeypatch.setattr(retrace, "MAX_LINE", 100)
    made = retracer(tmp_path, plain("p", FPU))
    name = f"{FPU}_{ID}".encode()
    text = b"x" * 20_000 + name + b" " + name + b" "
    text += b"y" * (20_000 + 2 * MAX_RUN - len(text))
    expected = text.replace(b" " + name, b" " + FPU.encode()) + b" z"
    assert next(block.end for block in blocks(iter([text]))) == 20_000
    assert through([text, b" z"], made) == expected
    assert through([text, b" z\n", b"z"], made) == expected + b"\nz"


def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    """100 MB in a single line, and in many, with 60 MiB for all data."""
    folder = write(tmp_path / "m", plain("p", FPU))
    script = "import sys; data = bytes.fromhex(sys.argv[1]) * 1000\nfor _ in range(100): sys.stdout.buffer.write(data)"
    for unit in (b"x" * 1000, f" {FPU}_{ID}".encode() * 15, f"{FPU}_{ID}\n".encode() * 15):
        command = [sys.executable, "-c", script, unit.hex()]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as feeder:
            done = subprocess.run(
                [*COMMAND, "-m", folder],
                stdin=feeder.stdout,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (60 << 20, 60 << 20)),
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
    assert not lookup.known
    one = plain("p3", "a.c#f")["symbols"][0]["name"]
    assert b"".join(made.block(one.encode())) == b"a.c#f"
    assert len(lookup.known) == 1
    assert lookup.candidates(one.encode()) == [
        Candidate(b"a.c#f", "p3", plain("p3")["build_id"], str(next(folder.glob("p3-*"))))
    ]


def test_many_suffixes(tmp_path: Path) -> None:
    """Suffixes that are no build-ids, thousands of them, are told apart, the longest first."""
    suffixes = [f"hotfix-{n}" for n in range(3000)]
    folder = write(tmp_path / "m", *(manifest(s, {"a.c#f": f"a.c#f_{s}"}, suffix=s) for s in suffixes))
    made = Retracer(Lookup(open_sources([str(folder)])))
    text = " ".join(f"a.c#f_{s}+0x1 a.c#f_{s}x" for s in suffixes).encode()
    assert b"".join(made.block(text)) == re.sub(rb"_hotfix-\d+\+", b"+", text)


def test_quick_way_is_the_careful_way(tmp_path: Path) -> None:
    """Known, unknown and ambiguous names side by side, with and without blanks: both ways say the same."""
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
        out = b"".join(quick.block(text))
        assert out == b"".join(careful.block(text)), text
        replaced += out != text
    assert 500 < replaced < 3000
    assert quick._lookup.simple
    assert quick.unknown == careful.unknown


def test_names_of_payloads_below(tmp_path: Path) -> None:
    """A stacked payload's manifest has names of another one: the same meaning, and no place of its own for them."""
    below = plain("p", FPU)
    name = below["symbols"][0]["name"]
    against = {"payload": "p", "build_id": ID, "template": "{symbol}_{suffix}", "suffix": ID}
    reference = {"index": 9, "original": FPU, "name": name, "st_name": 1, "build_id": ID}
    above = {**plain("q", "b.c#g"), "against": [against], "references": [reference]}
    made = retracer(tmp_path, below, above, line_of=lambda found, _, offset: f"p.c:{offset}" * (found.payload == "p"))
    text = f"S {name}+0x7/0x9 b.c#g_{above['suffix']}\n".encode()
    assert b"".join(made.block(text)) == f"S {FPU}+0x7/0x9 (p.c:7) b.c#g\n".encode()
    assert made._lookup.simple
    only_above = Retracer(Lookup(open_sources([str(next((tmp_path / "m").glob("q-*")))])))
    assert b"".join(only_above.block(text)) == f"S {FPU}+0x7/0x9 b.c#g\n".encode()


def test_damaged_manifest_in_a_folder(tmp_path: Path) -> None:
    """A manifest that was cut is said, and the others serve all the same."""
    whole = write(tmp_path / "m", plain("p", FPU), manifest("q", {"b.c#g": "b.c#g_v1"}, suffix="v1"))
    for one in (plain("cut", "c.c#h"), manifest("cut2", {"c.c#h": "c.c#h_v1"}, suffix="v1")):
        path = next(write(tmp_path / "n", one).glob(f"{one['payload']}-*"))
        (whole / path.name).write_bytes(path.read_bytes()[:-20])
    name = f"c.c#h_{plain('cut')['build_id']}"
    done = run("-m", whole, text=f"{FPU}_{ID} b.c#g_v1 {name}\n".encode())
    assert done.stdout == f"{FPU} b.c#g {name}\n".encode()
    assert done.stderr.count(b": warning: left out: not a manifest of lpmangle: ") == 2


def test_no_sources() -> None:
    assert b"no manifests to look into" in run(code=2).stderr
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
    """The stream is named that failed, and no other file is taken for a stream that was closed."""
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
