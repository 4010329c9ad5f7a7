"""What no loader notices, or reports too briefly: init memory, copies of variables, nearly right names."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import lpmangle
from hypervisor import START, Small, base, payload
from lab.editor import Editor

from lpmangle.loader import CRASH, WARNING, State, Upload, Verdict, check_sequence, check_upload
from lpmangle.xen.lookalikes import Lookalikes, compiler_made
from lpmangle.xen.versions import parse_version

INIT = {b"__init_begin": START + 0x700, b"__init_end": START + 0x800, b"setup": START + 0x780, b"after": START + 0x800}


def knows(*names: str, version: str = "4.17.7") -> State:
    """A hypervisor that also has these names."""
    return State(Small(INIT | {name.encode(): START + 0x900 for name in names}), parse_version(version))


def ask(data: bytes | bytearray, state: State) -> Verdict:
    return check_upload(Upload("two", bytes(data)), state)


def details(verdict: Verdict, rule: str) -> list[str]:
    return [finding.detail for finding in verdict.everything if finding.rule == rule]


@pytest.mark.parametrize(
    ("name", "warned"), [("setup", True), ("__init_begin", True), ("after", False), ("printk", False)]
)
def test_a_symbol_of_init_memory(name: str, warned: bool) -> None:
    editor = Editor(base()).rename("lp_data", name)
    verdict = ask(editor.edit_symbol(name, shndx=0).data, knows())
    assert verdict.first is None
    assert details(verdict, "init-symbol") == ([name] if warned else [])


def test_a_symbol_of_init_memory_that_nothing_names() -> None:
    editor = Editor(base()).rename("lp_data", "setup").edit_symbol("setup", shndx=0).edit(".rela.text", size=0)
    assert details(ask(editor.data, knows()), "init-symbol") == []


@pytest.mark.parametrize(("version", "when"), [("4.14.4", "apply"), ("4.14.5", "upload"), ("4.17", "upload")])
def test_a_function_of_init_memory(version: str, when: str) -> None:
    """Since Xen looks for ENDBR64 it reads the old code at once; before, apply does."""
    editor = Editor(base()).add(".livepatch.strings", b"setup\0")
    editor.edit_symbol(7, shndx=editor.count - 1).relocation(".rela.livepatch.funcs", 0, symbol=7, addend=0)
    verdict = ask(editor.data, knows(version=version))
    found = verdict.first if when == "upload" else next(finding for finding in verdict.then if finding.fatal)
    assert found
    assert (found.rule, found.severity) == ("func-init", CRASH)
    assert not verdict.good


# A new variable, what the hypervisor has, and whether it is the same one.
TWINS = [
    ("upload.c#once_.3", "upload.c#once_.7", True),
    ("upload.c#once_.3", "common/upload.c#once_.7", True),
    ("common/upload.c#calls", "upload.c#calls", True),
    ("common/upload.c#calls", "arch/x86/upload.c#calls", False),
    ("upload.c#calls", "other.c#calls", False),
    ("upload.c#calls", "calls", False),
    ("calls.3", "calls.7", True),
    ("calls.llvm.123", "calls", True),
    ("calls", "calls.lto_priv.0", True),
    ("upload.c#calls", "upload.c#calls_2", False),
    ("nload.c#calls", "upload.c#calls", False),
]


@pytest.mark.parametrize(("new", "known", "twin"), TWINS)
def test_a_variable_that_the_hypervisor_has(new: str, known: str, twin: bool) -> None:
    editor = Editor(base()).rename("upload.c#calls", new)
    verdict = ask(editor.data, knows(known))
    assert verdict.first is None
    assert details(verdict, "twin") == ([f"{new}: the hypervisor has {known}"] if twin else [])
    assert all(finding.severity == WARNING for finding in verdict.findings if finding.rule == "twin")


def test_copies_of_code_and_constants_do_no_harm() -> None:
    editor = Editor(base()).rename("upload.c#helper", "upload.c#helper.constprop.1")
    editor.rename("upload.c#calls", "upload.c#__func__.7").edit_symbol("upload.c#__func__.7", shndx=4)
    assert details(ask(editor.data, knows("upload.c#helper", "upload.c#__func__.3")), "twin") == []


@pytest.mark.parametrize(
    "options", [(), ("--template", "{suffix}.{symbol}", "--suffix", "text:x")], ids=["default", "own"]
)
def test_mangled_variables_have_twins_too(options: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "p.livepatch"
    path.write_bytes(Editor(base()).rename("upload.c#calls", "upload.c#once_.3").data)
    lpmangle("-q", *options, path)
    (detail,) = details(ask(path.read_bytes(), knows("common/upload.c#once_.7")), "twin")
    name, _, rest = detail.partition(": ")
    assert name.startswith("x.upload.c#once_.3" if options else "upload.c#once_.3_")
    assert rest == "the hypervisor has common/upload.c#once_.7"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("build_id_p", "did you mean common/version.c#build_id_p?"),
        ("version.c#build_id_p", "did you mean common/version.c#build_id_p?"),
        ("common/version.c#build_id_p.3", "did you mean common/version.c#build_id_p?"),
        ("sched.c#printk", "did you mean printk?"),
        ("lock", "did you mean common/sched.c#lock?"),
        ("nothing_like_it", ""),
    ],
)
def test_an_unknown_symbol(wanted: str, said: str) -> None:
    editor = Editor(base()).rename("lp_data", wanted)
    verdict = ask(editor.edit_symbol(wanted, shndx=0).data, knows())
    assert verdict.first
    assert (verdict.first.rule, verdict.first.detail) == ("unknown-symbol", said)
    assert verdict.first.message == f"livepatch: two: Unknown symbol: {wanted}"


def test_an_unknown_symbol_of_a_mangled_payload() -> None:
    one = payload("one", names={"lp_data": "shared_0123456789"})
    user = Editor(payload("two").data).rename("lp_data_two", "shared").edit_symbol("shared", shndx=0)
    verdict = check_sequence([one, Upload("two", bytes(user.data))], knows())[1]
    assert verdict.first
    assert verdict.first.detail == "did you mean shared_0123456789?"


def test_an_unknown_function() -> None:
    editor = Editor(base()).add(".livepatch.strings", b"create.c#domain_create.cold\0")
    editor.edit_symbol(7, shndx=editor.count - 1).relocation(".rela.livepatch.funcs", 0, symbol=7, addend=0)
    verdict = ask(editor.data, knows())
    assert verdict.first
    assert (verdict.first.rule, verdict.first.detail) == ("func-old-address", "did you mean domain_create?")


def test_what_compilers_append() -> None:
    for name in (b"calls.3", b"f.constprop.0", b"f.isra.0.cold", b"x.llvm.123", b"x.lto_priv.0"):
        assert compiler_made(name)
    for name in (b"calls", b"a.b", b"file.c#f", b"x.3y"):
        assert compiler_made(name) == b""
    assert Lookalikes([]).like(b"") == []
