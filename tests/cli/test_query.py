"""lpmangle query: names in either direction, in all forms that people have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import EXAMPLES, lpmangle
from elfbuild import HOOK, TEXT, Sym, build, build_id
from manifests import manifest, write

from lpmangle.manifest.search import wanted


@pytest.fixture
def mangled(tmp_path: Path) -> Path:
    payload = Path(shutil.copy(EXAMPLES / "fbab204.livepatch", tmp_path))
    lpmangle("--suffix", "buildid:12", payload)
    return payload


def test_query(mangled: Path) -> None:
    suffix = json.loads(Path(f"{mangled}.manifest.json").read_text())["suffix"]
    build_id_text = json.loads(Path(f"{mangled}.manifest.json").read_text())["build_id"]
    expected = f"""\
x86_emulate.c#_get_fpu
  new name  x86_emulate.c#_get_fpu_{suffix}
  file      x86_emulate.c
  at        .text+0x0, 13 bytes, LOCAL FUNC
  payload   fbab204, build-id {build_id_text}
"""
    for symbol in (
        "_get_fpu",
        "x86_emulate.c#_get_fpu",
        f"x86_emulate.c#_get_fpu_{suffix}",
        f"_get_fpu_{suffix}",
        f"x86_emulate.c#_get_fpu_{suffix}+0x1f/0x24",
        "_get_*",
        "x86_emulate.c#_ge?_fpu",
    ):
        assert lpmangle("query", symbol, "-m", mangled).stdout == expected, symbol
    assert lpmangle("query", "_get_fpu", "_get*", "-m", f"{mangled}.manifest.json").stdout == expected
    several = lpmangle("query", "*", "-m", mangled).stdout
    assert several.count("new name") == len(json.loads(Path(f"{mangled}.manifest.json").read_text())["symbols"])
    none = lpmangle("query", "get_fpu", "xen_extra_version", "_get_fpu", "-m", mangled, code=1)
    assert none.stdout == expected
    assert none.stderr.count("not in any manifest that was found") == 2
    report = json.loads(lpmangle("query", "_get_fpu", "x", "--json", "-m", mangled, code=1).stdout)
    assert report["not_found"] == ["x"]
    assert [match["original"] for match in report["matches"]] == ["x86_emulate.c#_get_fpu"]


def test_query_finds_names_that_xen_cut(tmp_path: Path) -> None:
    payload = tmp_path / "p.livepatch"
    names = [b"f.c#" + b"n" * 122 + end for end in (b"_one", b"_two")]
    payload.write_bytes(build([TEXT, build_id(), HOOK], [Sym(name) for name in names]).data)
    lpmangle(payload)
    both = json.loads(lpmangle("query", "--json", "f.c#" + "n" * 122, "-m", payload).stdout)["matches"]
    assert [match["original"].encode() for match in both] == names
    one = json.loads(lpmangle("query", "--json", names[0].decode(), "-m", payload).stdout)["matches"]
    assert len(one) == 1
    assert len(one[0]["name"]) == 126


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
