"""The command line, called as users call it."""

import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import EXAMPLES, lpmangle
from elfbuild import GLOBAL, HOOK, TEXT, Sym, build, build_id, plain
from processes import catches, wait_until

from lpmangle import __version__
from lpmangle.cli.commands import COMMANDS


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    return Path(shutil.copy(EXAMPLES / "fbab204.livepatch", tmp_path))


@pytest.fixture
def original(payload: Path) -> bytes:
    return payload.read_bytes()


def test_the_main_job_and_back(payload: Path, original: bytes) -> None:
    done = lpmangle("--suffix", "buildid", payload)
    manifest = json.loads(Path(f"{payload}.manifest.json").read_text())
    count = len(manifest["symbols"])
    assert done.stdout == f"{payload}: {count} symbols renamed, suffix {manifest['build_id']}\n"
    assert done.stderr == ""
    names = subprocess.run(["nm", payload], capture_output=True, text=True, check=True).stdout.split()
    assert f"x86_emulate.c#_get_fpu_{manifest['build_id']}" in names
    assert "x86_emulate.c#_get_fpu" not in names
    assert "xen_extra_version" in names

    assert "verified" in lpmangle("verify", payload).stdout
    assert f"restored, sha256 {manifest['input']['sha256']}" in lpmangle("restore", payload).stdout
    assert payload.read_bytes() == original
    assert "is the original already" in lpmangle("restore", payload).stdout


def test_run_twice(payload: Path) -> None:
    lpmangle(payload)
    before = payload.read_bytes(), Path(f"{payload}.manifest.json").read_bytes(), payload.stat().st_mtime_ns
    done = lpmangle(payload)
    assert done.stdout == f"{payload}: already mangled\n"
    assert (payload.read_bytes(), Path(f"{payload}.manifest.json").read_bytes(), payload.stat().st_mtime_ns) == before
    Path(f"{payload}.manifest.json").unlink()
    assert "has no manifest that fits" in lpmangle(payload).stderr
    refused = lpmangle("--suffix", "name", payload, code=3)
    assert refused.stderr.startswith(f"lpmangle: {payload}: is already mangled, with --suffix buildid --template ")
    assert "hint: to mangle it in another way, restore" in refused.stderr


def test_mangled_input_to_another_output(payload: Path, tmp_path: Path) -> None:
    lpmangle(payload)
    out = tmp_path / "out.livepatch"
    assert "already mangled" in lpmangle("-o", out, payload).stdout
    assert out.read_bytes() == payload.read_bytes()
    assert Path(f"{out}.manifest.json").read_bytes() == Path(f"{payload}.manifest.json").read_bytes()


def test_objcopy_between_two_runs(payload: Path, original: bytes) -> None:
    """objcopy drops the mark; the names still carry the suffix, and the manifest leads back."""
    lpmangle(payload)
    subprocess.run(["objcopy", payload], check=True)
    changed = payload.read_bytes()
    assert "already mangled" in lpmangle(payload).stdout
    assert payload.read_bytes() == changed
    assert "rewritten since" in lpmangle("verify", payload).stdout
    lpmangle("restore", payload)
    assert payload.read_bytes() == original


def test_output_elsewhere(payload: Path, original: bytes, tmp_path: Path) -> None:
    out, manifest = tmp_path / "new.livepatch", tmp_path / "sub" / "m.json"
    manifest.parent.mkdir()
    lpmangle("--suffix", "name", "-o", out, "--manifest", manifest, payload)
    assert payload.read_bytes() == original
    assert json.loads(manifest.read_text())["suffix"] == "new"
    assert not Path(f"{out}.manifest.json").exists()
    lpmangle("verify", out, "-m", manifest, "--original", payload)
    lpmangle("verify", out, code=3)
    back = tmp_path / "back"
    lpmangle("restore", out, "-m", manifest, "-o", back)
    assert back.read_bytes() == original


def test_same_input_same_bytes(tmp_path: Path) -> None:
    outputs = []
    for folder in ("a", "b/deeper"):
        (tmp_path / folder).mkdir(parents=True)
        payload = Path(shutil.copy(EXAMPLES / "fbab204.livepatch", tmp_path / folder))
        os.utime(payload, (len(folder), 1))
        lpmangle(payload.name, cwd=payload.parent)
        outputs.append((payload.read_bytes(), Path(f"{payload}.manifest.json").read_bytes()))
    assert outputs[0] == outputs[1]


def test_dry_run_writes_nothing(payload: Path, original: bytes) -> None:
    done = lpmangle("--dry-run", payload)
    assert list(payload.parent.iterdir()) == [payload]
    assert payload.read_bytes() == original
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["SYMBOL", "NAME", "NEW", "NAME,", "OR", "WHY", "NOT"]
    assert any("xen_extra_version" in line and "(overriding" in line for line in lines)
    (report,) = json.loads(lpmangle("--dry-run", "--json", payload).stdout)["payloads"]
    assert report["status"] == "would be mangled"
    symbols = report["symbols"]
    assert len(symbols) == len(lines) - 2
    assert all((symbol["new_name"] is None) != (symbol["reason"] is None) for symbol in symbols)
    assert list(payload.parent.iterdir()) == [payload]


def test_globals_that_stay_are_named(tmp_path: Path) -> None:
    payload = tmp_path / "p.livepatch"
    symbols = [Sym(b"f"), *(Sym(b"gnttab_%d" % number, bind=GLOBAL) for number in range(25))]
    payload.write_bytes(build([TEXT, build_id(), HOOK], symbols).data)
    warning = lpmangle("--dry-run", payload).stderr
    assert warning.startswith(f"lpmangle: {payload}: warning: 25 new symbols keep their names (GLOBAL or WEAK)")
    assert "gnttab_0, gnttab_1," in warning
    assert "gnttab_19 and 5 more" in warning
    assert "--scope new renames these too" in warning
    assert lpmangle("--scope", "new", payload).stderr == ""


def test_warnings(tmp_path: Path) -> None:
    payload = tmp_path / "p.livepatch"
    payload.write_bytes(plain().data + bytes(2 << 20))
    done = lpmangle("--keep", "no_such*", payload, "--only", "*")
    assert "no new symbol matches 'no_such*'" in done.stderr
    assert "Xen refuses more than 2097152" in done.stderr
    assert "strip -g" in done.stderr
    done = lpmangle("--keep", "no_such*", "--only", "*", payload, "--json")
    assert json.loads(done.stdout)["payloads"][0]["warnings"]


def test_nothing_to_rename(tmp_path: Path) -> None:
    payload = tmp_path / "p.livepatch"
    payload.write_bytes(build([TEXT, build_id(), HOOK], [Sym(b"f", bind=GLOBAL)]).data)
    before = payload.read_bytes()
    for _ in range(2):
        assert lpmangle(payload).stdout == f"{payload}: nothing to rename\n"
    assert payload.read_bytes() == before
    assert "verified, 0 renamed" in lpmangle("verify", payload).stdout
    lpmangle("-o", tmp_path / "out", payload)
    assert (tmp_path / "out").read_bytes() == before


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["no-such-file"], 2, "lpmangle: no-such-file: there is no such file"),
        (["."], 2, "lpmangle: .: is a folder, not a regular file"),
        (["text"], 3, "lpmangle: text: not an ELF file"),
        (["--suffix", "text:a#b", "p"], 2, "cannot be part of a symbol name"),
        (["--suffix", "bad", "p"], 2, "is not one of buildid, buildid:N, name, text:STRING"),
        (["--template", "{symbol}", "p"], 2, "must contain {suffix}"),
        (["--scope", "all", "p"], 2, "'all' is not one of"),
        (["p", "-o", "no/such/folder/x"], 2, "lpmangle: no/such/folder: there is no such folder"),
        (["p", "-o", "text/x"], 2, "lpmangle: text: is a regular file, not a folder"),
        (["p", "--manifest", "p"], 2, "--manifest names the payload itself"),
        (["p", "-o", "q", "--manifest", "./q"], 2, "--manifest names the payload itself"),
        (["p", "--only", "a\x1b[31m"], 2, "is not printable"),
        (["--no-such-option", "p"], 2, "No such option"),
        ([], 2, "Usage"),
        (["query", "-m", "p"], 2, "SYMBOL"),
        (["noid"], 3, "has no build-id"),
        (["empty"], 3, "not an ELF file"),
        (["fifo"], 2, "is a FIFO, not a regular file"),
    ],
)
def test_errors(tmp_path: Path, args: list[str], code: int, message: str) -> None:
    (tmp_path / "p").write_bytes(plain().data)
    (tmp_path / "text").write_text("no elf\n")
    (tmp_path / "empty").touch()
    (tmp_path / "noid").write_bytes(build([TEXT], [Sym(b"f")]).data)
    os.mkfifo(tmp_path / "fifo")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    done = lpmangle(*args, cwd=tmp_path, code=code)
    assert message in done.stderr
    assert done.stdout == ""
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_odd_names_are_printed_safely(tmp_path: Path) -> None:
    payload = tmp_path / "p\x1b]0;x\x07\n.livepatch"
    payload.write_bytes(build([TEXT, build_id(), HOOK], [Sym("evil\x1b[2J\n\u202etxt".encode())]).data)
    for args in (("--dry-run",), ("-v",), ("query", "*", "-m"), ("verify",)):
        done = lpmangle(*args, payload)
        assert not set(done.stdout + done.stderr) & set("\x1b\x07\u202e"), args
    assert "\\x1b[2J\\n\\u202etxt" in lpmangle("query", "*", "-m", payload).stdout
    lpmangle("restore", payload)


def test_file_name_that_is_no_text(tmp_path: Path) -> None:
    payload = os.fsencode(tmp_path) + b"/p\xff.livepatch"
    with open(payload, "wb") as file:
        file.write(plain().data)
    done = subprocess.run([sys.executable, "-m", "lpmangle", payload], capture_output=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([sys.executable, "-m", "lpmangle", "--json", payload], capture_output=True)
    assert done.returncode == 0, done.stderr
    with open(payload + b".manifest.json", "rb") as file:
        assert json.load(file)["payload"] == r"p\udcff"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    """Stopped at any moment: the payload is the complete old or new one, and no temporary file stays."""
    payload = tmp_path / "p.livepatch"
    original = build([TEXT, build_id(), HOOK], [Sym(b"f.c#g%d" % number) for number in range(30_000)]).data
    finished = 0
    for step in range(8):
        payload.write_bytes(original)
        process = subprocess.Popen(
            [sys.executable, "-m", "lpmangle", str(payload)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_until(catches, process.pid, signal.SIGHUP)  # the last handler that it installs
        time.sleep(step * 0.07)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
        if payload.read_bytes() != original:
            lpmangle("verify", payload)
            finished += 1
        if process.returncode != 0:  # 0: it was faster
            # When all is done Python gives signals back to the system, and the process dies of it: the same to a shell.
            assert process.returncode in (128 + number, -number), stderr
        assert {path.name for path in tmp_path.iterdir()} <= {payload.name, f"{payload.name}.manifest.json"}
    assert lpmangle(payload).returncode == 0


def test_version() -> None:
    """The first line is for programs. The version of LIEF is right, and LIEF is not loaded for it."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lpmangle", "--version"], capture_output=True, text=True, check=True
    )
    python = ".".join(map(str, sys.version_info[:3]))
    known = f"Python {python}, lief {importlib.metadata.version('lief')}, Xen 4.14 to 4.22"
    assert done.stdout == f"lpmangle {__version__}\n{known}\n"
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "lpmangle.cli" in loaded
    assert not {"lief", "importlib.metadata", "lpmangle.cli.mangle"} & loaded


def test_interrupted_while_modules_are_loaded(tmp_path: Path) -> None:
    """Ctrl-C ends the process without a traceback. If it is ignored, as in `nohup`, it stays ignored."""
    (tmp_path / "click.py").write_text("import os\nos.kill(os.getpid(), 2)\nimport real_click\n")
    command = [sys.executable, "-m", "lpmangle", "--version"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]
    done = subprocess.run(ignoring, env=environment, capture_output=True, text=True)
    assert "No module named 'real_click'" in done.stderr


@pytest.mark.parametrize("option", ["--dry-run", "-v", "--json"])
def test_closed_pipe(payload: Path, option: str) -> None:
    done = subprocess.run(
        f"{sys.executable} -m lpmangle {option} {payload} | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.returncode == 0


def test_full_disk_behind_stdout(payload: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lpmangle", payload], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.stderr == "lpmangle: cannot print: No space left on device\n"
    assert done.returncode == 4
    lpmangle("verify", payload)


def test_terminal_that_cannot_show_a_name(tmp_path: Path) -> None:
    payload = tmp_path / "p.livepatch"
    payload.write_bytes(build([TEXT, build_id(), HOOK], [Sym("f→".encode())]).data)
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(
        [sys.executable, "-m", "lpmangle", "-v", payload], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert r"f\u2192 -> f\u2192_" in done.stdout


def test_objcopy_then_another_way(payload: Path) -> None:
    """The names of the first run do not become originals of the second one: the original is restored first."""
    for others in (("--suffix", "text:x"), ("--suffix", "buildid:12")):
        lpmangle(payload)
        subprocess.run(["objcopy", payload], check=True)
        assert "restored first" in lpmangle(*others, payload).stdout
        lpmangle("verify", "--original", EXAMPLES / "fbab204.livepatch", payload)
        lpmangle("restore", payload)


def test_strip_and_objcopy_then_another_way(payload: Path) -> None:
    """The names of the first run must not become originals of a second one, nor its manifest be lost."""
    lpmangle("--suffix", "name", payload)
    subprocess.run(["strip", "-g", payload], check=True)
    before = {path.name: path.read_bytes() for path in payload.parent.iterdir()}
    for others in (("--suffix", "text:x"), ("--suffix", "buildid:12"), ("--suffix", "text:x", "--only", "zzz")):
        assert "is already mangled" in lpmangle(*others, payload, code=3).stderr
    assert {path.name: path.read_bytes() for path in payload.parent.iterdir()} == before


def test_no_output_costs_a_file_of_another_kind(payload: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(EXAMPLES / "617712b.livepatch", tmp_path))
    lpmangle(other)
    manifest = Path(f"{other}.manifest.json")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert "is not a manifest: not replaced" in lpmangle("--manifest", other, payload, code=4).stderr
    assert "is a manifest: not replaced" in lpmangle("-o", manifest, payload, code=4).stderr
    assert "is a manifest: not replaced" in lpmangle("restore", "-o", manifest, other, code=4).stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    shared = tmp_path / "shared.json"
    lpmangle("--manifest", shared, "-o", tmp_path / "first.livepatch", payload)
    said = lpmangle("--manifest", shared, "-o", tmp_path / "second.livepatch", payload, code=4).stderr
    assert "is the manifest of first: not replaced" in said
    lpmangle("--manifest", shared, "-o", tmp_path / "first.livepatch", payload)
    lpmangle("verify", "-m", shared, tmp_path / "first.livepatch")
    empty = tmp_path / "made-by-mktemp"
    empty.touch()
    lpmangle("--manifest", empty, payload)


@pytest.mark.parametrize("args", [("-o", ""), ("--manifest", ""), ("restore", "-o", ""), ("verify", "-m", "")])
def test_empty_path(payload: Path, original: bytes, args: tuple[str, ...]) -> None:
    """An unset variable of a script must not mean: in place."""
    assert "the path is empty" in lpmangle(*args, payload, code=2).stderr
    assert payload.read_bytes() == original
    assert list(payload.parent.iterdir()) == [payload]


def test_help_shows_an_example_first() -> None:
    text = lpmangle("--help").stdout
    assert text.index("lpmangle fbab204.livepatch") < text.index("Options")
    for option in ("--suffix", "--template", "--scope", "--dry-run"):
        assert option in text
    for name, short in COMMANDS.items():
        assert name in text
        own = lpmangle(name, "--help").stdout
        assert own.index("Examples:") < own.index("Options:")
        assert f"lpmangle {name}" in own or name == "mangle"
        assert short.endswith(".")


@pytest.mark.parametrize(
    ("words", "position", "expected"),
    [
        ("lpmangle que", 1, "plain,query"),
        ("lpmangle --suf", 1, "plain,--suffix"),
        ("lpmangle fbab", 1, "file,fbab"),
        ("lpmangle --scope ", 2, "plain,new"),
        ("lpmangle --scope new fb", 3, "file,fb"),
        ("lpmangle query --", 2, "plain,--manifest"),
        ("lpmangle restore fb", 2, "file,fb"),
    ],
)
def test_shell_completion(words: str, position: int, expected: str) -> None:
    environment = {
        **os.environ,
        "_LPMANGLE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(position),
    }
    done = subprocess.run([Path(sys.executable).with_name("lpmangle")], env=environment, capture_output=True, text=True)
    assert expected in done.stdout.splitlines(), done.stdout + done.stderr


def test_start_loads_nothing_heavy() -> None:
    code = "import sys, lpmangle.cli.mangle; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"lief", "msgspec", "elftools", "sqlite3", "numpy", "urllib.request", "asyncio", "jinja2"} & set(loaded)


@pytest.mark.parametrize("option", ["-v", "--json", "--dry-run", "-q"])
def test_a_name_too_long_to_be_renamed_is_shown_in_part(tmp_path: Path, option: str) -> None:
    """It keeps its name; no report may call a payload failed that has been replaced."""
    payload = tmp_path / "p.livepatch"
    payload.write_bytes(build([TEXT, build_id()], [Sym(b"a.c#f"), Sym(b"q" * 5000, 0, GLOBAL)]).data)
    done = lpmangle(option, payload)
    assert ("q" * 4096 in done.stdout) is (option in ("--json", "--dry-run"))
    assert "q" * 4097 not in done.stdout
    assert Path(f"{payload}.manifest.json").exists() is (option != "--dry-run")
