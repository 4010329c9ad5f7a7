"""Messages: a number and its noun agree, everywhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import lpmangle
from lpmangle.elf.appended import describe
from lpmangle.errors import counted

NOUNS = (
    "build-ids|bytes|characters|digits|entries|files|functions|globs|hooks|lines|manifests|matches|names|pages|payloads|"
    "places|seconds|sections|servers|stacks|symbols|tables|words"
)
PLURAL = re.compile(rf"(?: [a-zA-Z-]+){{0,2}} (?:{NOUNS})\b(?! the)")
# More than one by what was asked before, or no number.
FINE = {
    "MAX_MISSES", "MAX_NAME", "MAX_NAME_BYTES", "count", "e_shnum", "entry", "entry.size", "len(content)", "len(data)",
    "len(entries)", "len(globs)", "len(names)", "len(os.fsencode(name))", "len(paths)",
    "len(plan.renames)", "len(suffix)", "len(tables)", "len(view.sections)", "one.borrowed", "section.size", "sections",
    "size", "state.st_size", "accepted",
}  # fmt: skip


def test_counted() -> None:
    assert [counted(number, "symbol") for number in (0, 1, 2)] == ["0 symbols", "1 symbol", "2 symbols"]
    assert [counted(number, "entry is", "entries are") for number in (1, 2)] == ["1 entry is", "2 entries are"]


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (1, "1 byte that belongs to no section (a signature?) was appended"),
        (2, "2 bytes that belong to no section (a signature?) were appended"),
    ],
)
def test_what_was_appended(size: int, said: str) -> None:
    assert describe(b"x" * size, size, "was appended", "were appended") == said


def numbered_plurals(path: Path) -> list[str]:
    """The places where a number is filled in before a noun in the plural."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.JoinedStr):
            continue
        for number, words in zip(node.values, node.values[1:], strict=False):
            if not isinstance(number, ast.FormattedValue) or not isinstance(words, ast.Constant):
                continue
            what = ast.unparse(number.value)
            if PLURAL.match(str(words.value)) and what not in FINE and not what.startswith("counted("):
                found.append(f"{path.name}:{node.lineno}: {{{what}}}{words.value!s}")
    return found


def test_no_message_counts_one_of_several() -> None:
    folder = Path(lpmangle.__file__).parent
    assert [line for path in sorted(folder.rglob("*.py")) for line in numbered_plurals(path)] == []
