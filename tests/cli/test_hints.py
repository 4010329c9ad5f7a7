"""`lpmangle help`, hints, files given by mistake, and completion."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import EXAMPLES, lpmangle

ONLY = "lpmangle is only for livepatch payloads of Xen"


@pytest.mark.parametrize("words", [[], ["check"], ["catalog"], ["catalog", "add"]], ids=" ".join)
def test_help_is_help(tmp_path: Path, words: list[str]) -> None:
    """Even if there is a file of that name: a command comes first."""
    (tmp_path / "help").touch()
    assert lpmangle("help", *words, cwd=tmp_path).stdout == lpmangle(*words, "--help").stdout


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]], ids=" ".join)
def test_help_has_help(words: list[str]) -> None:
    assert lpmangle("help", *words).stdout.startswith("Usage: lpmangle help [COMMAND]...\n\n  Examples:\n")


@pytest.mark.parametrize(
    ("word", "hint"), [("verfy", "did you mean 'verify'?"), ("x.livepatch", "lpmangle --help lists")]
)
def test_help_of_what_is_no_command(word: str, hint: str) -> None:
    done = lpmangle("help", word, code=2)
    assert done.stderr.startswith(f"lpmangle: {word}: is not a command\n  hint: {hint}")


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that are not payloads, made by their own tools."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "a.c").write_text("int main(void) { return 0; }\n")
    linux = 'init: ret\n.section .gnu.linkonce.this_module,"aw"\n.zero 8\n.section .modinfo,"a"\n.asciz "license=GPL"\n'
    (folder / "module.s").write_text(linux)
    (folder / "livepatch.s").write_text(f'{linux}.asciz "livepatch=Y"\n')
    (folder / "klp.s").write_text(f'{linux}.section .klp.rela.vmlinux..text,"a"\n.zero 8\n')
    (folder / "vmlinux.s").write_text('.globl _start\n_start: ret\n.section __ksymtab_strings,"a"\n.asciz "printk"\n')
    for command in (
        *("gcc -c a.c", "ar r a.a a.o", "ar rT thin.a a.o", "tar -cf a.tar a.c", "gzip -k a.c", "xz -k a.c"),
        *("gcc -shared -nostdlib -o a.so a.o", "gcc -o dynamic a.o", "gcc -static -o static a.o"),
        *(f"gcc -c -o {name}.ko {name}.s" for name in ("module", "livepatch", "klp")),
        *("gcc -c -o vmlinux.o vmlinux.s", "ld -o vmlinux vmlinux.o", "strip -o stripped.ko livepatch.ko"),
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder


MISTAKES = {
    "a.a": "an archive (ar)",
    "thin.a": "an archive (ar)",
    "a.tar": "an archive (tar)",
    "a.c.gz": "compressed (gzip)",
    "a.c.xz": "compressed (xz)",
    "a.so": "a shared library",
    "dynamic": "an executable",
    "static": "an executable",
    "vmlinux": "the Linux kernel (vmlinux)",
    "module.ko": "a module of the Linux kernel",
    "livepatch.ko": "a livepatch module of the Linux kernel",
    "klp.ko": "a livepatch module of the Linux kernel",
    "stripped.ko": "a livepatch module of the Linux kernel",
}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("command", [(), ("verify",), ("restore",)], ids=str)
def test_a_file_given_by_mistake(mistakes: Path, name: str, command: tuple[str, ...]) -> None:
    """One line says what it is; the file does not change."""
    before = (mistakes / name).read_bytes()
    done = lpmangle(*command, name, cwd=mistakes, code=3)
    assert (done.stdout, done.stderr) == ("", f"lpmangle: {name}: is {MISTAKES[name]}; {ONLY}\n")
    assert (mistakes / name).read_bytes() == before
    assert not (mistakes / f"{name}.manifest.json").exists()


@pytest.mark.parametrize("name", MISTAKES)
def test_check_says_what_it_is(mistakes: Path, name: str) -> None:
    """After what Xen says; and no other warning, for example that lpmangle should rename its symbols."""
    (payload,) = json.loads(lpmangle("check", "--json", name, cwd=mistakes, code=1).stdout)["payloads"]
    assert payload["verdict"] == "refused"
    warnings = [finding for finding in payload["findings"] if finding["severity"] == "warning"]
    assert [(one["rule"], one["detail"]) for one in warnings] == [("other-file", f"is {MISTAKES[name]}; {ONLY}")]
    assert {one["errno_name"] for one in warnings} == {""}
    said = lpmangle("check", name, cwd=mistakes, code=1).stdout
    assert said.count(f"      is {MISTAKES[name]}; {ONLY}\n") == 1


FUNCTIONS = """\
struct livepatch_func {
    const char *name; void *new, *old; unsigned new_size, old_size; unsigned char version, opaque[71];
};
#define FUNC static struct livepatch_func __attribute__((used, section(".livepatch.funcs") ALIGNED))
FUNC a = { .version = 2 };
FUNC b = { .version = 2 };
"""


@pytest.mark.parametrize(("aligned", "padded"), [("", True), (", aligned(8)", False)], ids=["as-gcc-does", "aligned"])
def test_padding_between_functions(tmp_path: Path, aligned: str, padded: bool) -> None:
    (tmp_path / "a.c").write_text(FUNCTIONS.replace("ALIGNED", aligned))
    subprocess.run(["gcc", "-O2", "-c", "a.c", "-o", "a.o"], cwd=tmp_path, check=True)
    subprocess.run(["ld", "-r", "--build-id=sha1", "-o", "p.livepatch", "a.o"], cwd=tmp_path, check=True)
    done = lpmangle("p.livepatch", cwd=tmp_path, code=3 if padded else 0)
    assert ("232 bytes are not a multiple of 104" in done.stderr) is padded
    assert ("put padding between the entries: declare each with __attribute__((aligned(8)))" in done.stderr) is padded
    said = lpmangle("check", "p.livepatch", cwd=tmp_path, code=1).stdout
    assert "aligned(8)" in said or not padded


def test_a_server_is_asked_by_build_id(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "fbab204.livepatch", tmp_path)
    lpmangle("-q", "fbab204.livepatch", cwd=tmp_path)
    server = "http://127.0.0.1:1"
    hint = "hint: a server can only be asked by build-id"
    assert hint in lpmangle("query", "_get_fpu", "-m", server, cwd=tmp_path, code=1).stderr
    assert hint not in lpmangle("query", "nothing", "-m", "fbab204.livepatch", cwd=tmp_path, code=1).stderr


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("--suffix ", ["buildid", "buildid:", "name", "text:"]),
        ("build --suffix n", ["name"]),
        ("check --xen-version 4.2", ["4.20", "4.21", "4.22"]),
        ("check --vendor ", ["xenserver"]),
        ("@l", ["@list", "@lists/"]),
        ("restore @l", ["@list", "@lists/"]),
        ("build -- mytoo", ["mytool"]),
        ("build --check -- mytool li", ["li"]),
        ("help ver", ["ver", "verify"]),
    ],
)
def test_what_is_offered(tmp_path: Path, line: str, offered: list[str]) -> None:
    (tmp_path / "list").touch()
    (tmp_path / "lists").mkdir()
    (tmp_path / "mytool").write_text("#!/bin/sh\n")
    (tmp_path / "mytool").chmod(0o755)
    (tmp_path / "mytools").touch()  # no command
    count = str(len(line.split(" ")))
    asked = {"COMP_WORDS": f"lpmangle {line}", "COMP_CWORD": count, "_LPMANGLE_COMPLETE": "bash_complete"}
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["lpmangle"], cwd=tmp_path, env={**os.environ, **asked, "PATH": path}, capture_output=True, text=True
    )
    assert [item.partition(",")[2] for item in done.stdout.splitlines()] == offered
