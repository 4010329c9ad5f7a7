"""lpmangle query: what people paste."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from manifests import manifest, write
from test_cli import EXAMPLES, lpmangle

from lpmangle.manifest.search import wanted


@pytest.fixture
def mangled(tmp_path: Path) -> Path:
    payload = Path(shutil.copy(EXAMPLES / "fbab204.livepatch", tmp_path))
    lpmangle("--suffix", "buildid:12", payload)
    return payload


PASTED = (
    "{}",
    "  {}\t\n",
    "{}+0x3/0xd [fbab204]",
    "{}+0x3/0xd [another name]",
    " {}+0x3 ",
    "{}+21",
    "<{}+21>",
    "<{}>:",
    "{} + 21 in section .text of fbab204.livepatch",
    "{} in section .text",
    "<{}-0x4>",
)


def test_query_takes_what_people_paste(mangled: Path, tmp_path: Path) -> None:
    """From console traces, gdb and objdump; the same from a file and from a catalog."""
    lpmangle("catalog", "add", tmp_path / "c.db", mangled)
    new = json.loads(Path(f"{mangled}.manifest.json").read_text())["symbols"][0]["name"]
    words = [form.format(name) for name in (new, "_get_fpu", "x86_emulate.c#_get_fpu") for form in PASTED]
    for source in (mangled, tmp_path / "c.db"):
        found = lpmangle("query", *words, "-m", source).stdout
        assert found.count("new name") == 1
        assert found.startswith("x86_emulate.c#_get_fpu\n")
    report = json.loads(lpmangle("catalog", "find", tmp_path / "c.db", *words, "--json").stdout)
    assert [match["original"] for match in report["matches"]] == ["x86_emulate.c#_get_fpu"] * len(words)


@pytest.mark.parametrize("name", ["f", "a.c#f[1]", "a-0.c#f", "*f?", "f+g", "<f", "f>", "f.cold", ""])
def test_names_are_left_whole(name: str) -> None:
    assert wanted(name) == (name, None)
    assert wanted(f"{name}+0x1f/0x24 [p q]") == (name, "p q")


def test_query_the_payload_of_a_trace_decides(tmp_path: Path) -> None:
    several = (manifest(name, {f"{name}.c#f": "f_v1"}, suffix="v1") for name in ("one", "two"))
    folder = write(tmp_path / "m", *several)

    def found(word: str) -> list[str]:
        report = json.loads(lpmangle("query", word, "-m", folder, "--json").stdout)
        return [match["original"] for match in report["matches"]]

    assert found("f_v1+0x1/0x2 [two]") == ["two.c#f"]
    assert found("f_v1+0x1/0x2 [uploaded as that]") == found("f_v1") == ["one.c#f", "two.c#f"]
