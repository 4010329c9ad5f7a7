"""The common call is read without click: then click would have done the same."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import EXAMPLES, loaded, lpmangle

from lpmangle.cli import common_call, group, run
from lpmangle.cli.mangle_options import FLAG, OPTIONS, TEXTS
from lpmangle.cli.settings import PREFIX

SEED = int(os.environ.get("LPMANGLE_SEED", "18"))
LINES = 400
PAYLOAD = "fbab204.livepatch"
WORDS = (
    *[PAYLOAD] * 3, f"./{PAYLOAD}", "linked", "garbage", "folder", "missing", "mangle", "verify", "./verify", "help",
    "@list", "@", "-", "--", "", "a\tb", "--help", "-h", "--version", "--suf", "--suffix", "-qv", "-oout", "-q=1",
)  # fmt: skip
VALUES = (
    "name", "buildid:12", "buildid:3", "text:a_b", "text:", "text:a#b", "{name}.{suffix}", "{symbol}%_{suffix}", "*",
    "{suffix}", "lp_*", "", "-", "-x", "--", "out", "out.livepatch", "folder", "folder/", "missing/out", PAYLOAD,
    f"./{PAYLOAD}.manifest.json", "linked", "garbage", "3", "é", "a\nb", "new", "NEW",
)  # fmt: skip


def random_line(rng: random.Random) -> list[str]:
    """Words for `mangle`, most of which make sense."""
    words: list[str] = []
    for _ in range(rng.randrange(5)):
        option = rng.choice(OPTIONS)
        name = rng.choice([name for name in option.names if name.startswith("-")])
        value = rng.choice(option.choices or VALUES)
        if option.kind == FLAG:
            words.append(name)
        else:
            words += rng.choice([[name, value], [name, value], [f"{name}={value}"], [name]])
            if option.kind == TEXTS:  # may be repeated
                words += [name, rng.choice(("*_fpu", "lp_*", "x86*", value))] * rng.randrange(2)
    words.insert(rng.randrange(len(words) + 1), rng.choice(WORDS) if rng.random() < 0.3 else PAYLOAD)
    if rng.random() < 0.2:
        words.insert(rng.randrange(len(words) + 1), rng.choice(WORDS))
    return ["mangle", *words] if rng.random() < 0.2 else words


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    shutil.copy(EXAMPLES / PAYLOAD, tmp_path)
    shutil.copy(EXAMPLES / PAYLOAD, tmp_path / "verify")
    (tmp_path / "linked").symlink_to(PAYLOAD)
    (tmp_path / "garbage").write_bytes(b"no ELF file")
    (tmp_path / "list").write_text(f"{PAYLOAD}\n")
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_click_would_have_answered_the_same(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """For random command lines: exit code, output, and every file."""
    print(f"LPMANGLE_SEED={SEED}")
    rng, read = random.Random(SEED), 0
    environment = [name for name in os.environ if "LPMANGLE_" not in name]
    monkeypatch.setattr(os, "environ", {name: os.environ[name] for name in environment})
    for number in range(LINES):
        words, results = random_line(rng), []
        monkeypatch.chdir(place)
        if common_call.read(words, environment) is None:
            continue
        read += 1
        for act in (run, group.run):
            folder = place.parent / f"{number}"
            shutil.copytree(place, folder, symlinks=True)
            monkeypatch.chdir(folder)
            capfd.readouterr()
            status = act(words)
            results.append((status, capfd.readouterr(), content(folder)))
            monkeypatch.chdir(place)  # not in a folder that is removed
            shutil.rmtree(folder)
        assert results[0] == results[1], words
    assert read > LINES / 5


@pytest.mark.parametrize(
    "words",
    [
        [PAYLOAD],
        ["mangle", PAYLOAD],
        ["-q", PAYLOAD],
        [PAYLOAD, "--json", "--quiet"],
        ["--suffix", "name", "--scope=new", "-o", "out", "--manifest", "folder", PAYLOAD],
        ["--only", "*", "--only=a*", "--keep", "b*", PAYLOAD],
        ["--embed", "--force", "--if-changed", "--dry-run", "--fail-fast", "--output=folder", "--depfile=d", PAYLOAD],
    ],
    ids=" ".join,
)
def test_is_read(words: list[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    call = common_call.read(words, [])
    assert call
    assert call.payload == PAYLOAD


@pytest.mark.parametrize(
    "words", [["", PAYLOAD], [PAYLOAD, ""], ["mangle", "", PAYLOAD], ["-q", "", PAYLOAD], ["", "-q", PAYLOAD]], ids=str
)
def test_an_empty_word_is_no_payload(words: list[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For example an unset shell variable, in quotes."""
    monkeypatch.chdir(place)
    assert common_call.read(words, []) is None
    before = Path(PAYLOAD).read_bytes()
    assert "the path is empty" in lpmangle(*words, cwd=place, code=2).stderr
    assert Path(PAYLOAD).read_bytes() == before


def test_settings_in_the_environment_are_for_click(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for name in (f"{PREFIX}_SUFFIX", "LPMANGLE_MANIFESTS", f"_{PREFIX}_COMPLETE"):
        assert common_call.read([PAYLOAD], [name]) is None
    assert common_call.read([PAYLOAD], ["PATH", "HOME"])


# Modules that take longer to load than mangling a payload takes.
SLOW = {
    "click", "typing", "re", "json", "hashlib", "inspect", "dataclasses", "importlib.metadata", "pathlib", "tempfile",
    "subprocess", "shutil", "datetime", "uuid", "gettext", "random", "fnmatch", "difflib", "ast", "warnings",
    "argparse", "msgspec", "lief", "sqlite3", "urllib", "multiprocessing", "threading", "logging", "jinja2",
    "enum", "functools", "contextlib", "signal", "types", "collections", "operator",
}  # fmt: skip


@pytest.mark.parametrize("words", [["-o", "out", "--suffix", "name", PAYLOAD], ["--quiet", PAYLOAD]], ids=" ".join)
def test_loads_nothing_slow(words: list[str], place: Path) -> None:
    for _ in range(2):  # the second time there is a manifest
        modules = loaded(words, place)
        assert "lpmangle.jobs.mangle" in modules
        assert not SLOW & modules
        assert sum(name.startswith("lpmangle.") for name in modules) < 45
        shutil.copy(EXAMPLES / PAYLOAD, place)


def test_embedding_loads_little_more(place: Path) -> None:
    assert not SLOW & loaded(["--embed", PAYLOAD], place)


def test_garbage_is_collected_again(place: Path) -> None:
    """While modules are loaded, the collector is off: it would only take time."""
    code = "import gc; from lpmangle import cli; cli._status_of = lambda act: 40 + gc.isenabled(); cli.main()"
    assert subprocess.run([sys.executable, "-c", code, PAYLOAD], cwd=place, check=False).returncode == 41
