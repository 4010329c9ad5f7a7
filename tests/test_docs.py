"""The documentation shows what really happens."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from doc_examples import BLOCK, PAGES, ROOT, rendered

from lpmangle import __version__
from lpmangle.cli.commands import COMMANDS


@pytest.mark.parametrize("page", PAGES)
def test_console_examples(page: str) -> None:
    text = (ROOT / page).read_text()
    assert BLOCK.search(text)
    assert _whatever_objcopy(rendered(page)) == _whatever_objcopy(text), "run `make golden` and read the diff"


def _whatever_objcopy(page: str) -> str:
    """Without the digest of a file that objcopy has written: every version writes different bytes."""

    def masked(block: re.Match[str]) -> str:
        return re.sub("(?<=sha256 is )[0-9a-f]{64}", "...", block[0]) if "; objcopy " in block[0] else block[0]

    return BLOCK.sub(masked, page)


def test_the_examples_are_copied(tmp_path: Path) -> None:
    """The README's first line for the shell makes a folder with everything that its examples need."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (line,) = re.findall(r"^mkdir try; .*; cd try$", (ROOT / "README.md").read_text(), re.MULTILINE)
    done = subprocess.run(["bash", "-ec", f"{line}; ls"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["617712b.livepatch", "fbab204.livepatch", "sign-payload"]


def test_every_command_and_option_is_documented() -> None:
    text = (ROOT / "README.md").read_text()
    for name in COMMANDS:
        assert f"lpmangle {name}" in text or name == "mangle", name
    usage = subprocess.run([sys.executable, "-m", "lpmangle", "--help"], capture_output=True, text=True).stdout
    for word in usage.split():
        if word.startswith("--") and word.strip(",.:;") not in ("--help", "--version"):
            assert word.strip(",.:;") in text, word


def test_changelog_names_the_version() -> None:
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_contributing_names_every_room() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    picture = text.partition("## The rooms")[2].partition("## ")[0]
    rooms = {path.parent.name for path in (ROOT / "lpmangle").glob("*/__init__.py")}
    assert len(rooms) > 5
    assert {room for room in rooms if not re.search(rf"^    (\w+ +){{0,2}}{room}\b", picture, re.MULTILINE)} == set()
    modules = {path.stem for path in (ROOT / "lpmangle").glob("*.py")}
    assert modules == {"__init__", "__main__", "errors"}
