"""Commands that --help, the man pages and the documentation show without their output: each is run unchanged."""

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from builds import DEPENDS, ROOT, environment, make_tree, run, write_patch
from stacked import stacked

from lpmangle.cli.commands import COMMANDS
from lpmangle.cli.group import cli

BUILD_ID = "d967c17f6518371e26e591728fd30fa3f292977c"  # of examples/fbab204.livepatch
LOG = f"(XEN) R x86_emulate.c#_get_fpu_{BUILD_ID}+0x3/0xd [fbab204]\n"
# What a reader would write in place of dots and words in capitals.
PLACES = {
    "-p ...": "-p fix.patch ...",
    ".patch ...": ".patch -c .config -o out --depends ID --xen-depends ID",
    "d6068854...": BUILD_ID,
    "ID": DEPENDS,
}
STUBS = {
    "xl": "cat console.log",
    "tail": 'exec cat "$2"',  # -f: a log that ends
}


def help_examples() -> list[str]:
    """The examples of all pages of --help."""
    ctx = click.Context(cli)
    texts = {"lpmangle": cli.help or ""} | {name: (cli.get_command(ctx, name) or cli).help or "" for name in COMMANDS}
    found = {name: re.findall(r"^Examples:\n((?:  .*\n)+)", text, re.MULTILINE) for name, text in texts.items()}
    assert [name for name, block in found.items() if len(block) != 1] == [], "have no `Examples:` in their help"
    blocks = found.values()
    # On the first page, words follow after several blanks.
    return [re.split(r" {3,}", line.strip())[0] for (block,) in blocks for line in block.splitlines()]


def page_commands() -> list[str]:
    """The calls of lpmangle in the pages' blocks that show no output."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    blocks = [re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL) for page in pages]
    lines = [line.partition("   #")[0].strip() for block in blocks for part in block for line in part.splitlines()]
    return [line for line in lines if re.match(r"(xl dmesg \| )?lpmangle ", line)]


def prepare(folder: Path, command: str) -> None:
    """The files of the examples. Payloads are originals if the command mangles, and mangled otherwise."""
    for name in ("one", "old", "617712b", "build/617712b"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "examples" / "617712b.livepatch", folder / f"{name}.livepatch")
    for name in ("two", "in", "fbab204", "build/fbab204"):
        shutil.copy(ROOT / "examples" / "fbab204.livepatch", folder / f"{name}.livepatch")
    if re.search(r"lpmangle (query|restore|verify|retrace|catalog|show|compare)|--against", command):
        run(["lpmangle", "-q", "fbab204.livepatch"], folder)
        on_top = stacked(2, bytes.fromhex(BUILD_ID), new=["a.c#f"], undefined=["x86_emulate.c#_get_fpu"], xen=None)
        (folder / "on-top-of-it.livepatch").write_bytes(on_top.data)
        (folder / "shipped").mkdir()
        shutil.copy(folder / "fbab204.livepatch.manifest.json", folder / "shipped" / "fbab204.manifest.json")
        (folder / "rebuilt").mkdir()
        for name in ("rebuilt", "shipped"):
            shutil.copy(folder / "fbab204.livepatch", folder / name)
        for name in ("catalog.db", "shipped.db", "from-the-other-site.db"):
            run(["lpmangle", "catalog", "add", name, "shipped"], folder)
    if "catalog add" in command:
        run(["lpmangle", "-q", "build/617712b.livepatch", "build/fbab204.livepatch"], folder)
    if re.search(r"(restore|verify) .*build/\*", command):
        run(["lpmangle", "-q", "build/617712b.livepatch", "build/fbab204.livepatch"], folder)
        run(["lpmangle", "catalog", "add", "shipped.db", "build"], folder)
    for name in ("out", "originals"):
        if f"-o {name}/" in command:
            (folder / name).mkdir()
    (folder / "console.log").write_text(LOG)
    (folder / "bin").mkdir()
    for name, text in STUBS.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    if "lpmangle build" in command:
        make_tree(folder / "xen")
        (folder / ".config").touch()
        for name in ("fix", "fbab204"):
            write_patch(folder / f"{name}.patch")
        (folder / "patches").mkdir()
        (folder / "patches" / "Makefile").write_text("fix.livepatch:\n\tcp ../build/fbab204.livepatch $@\n")
    if "--xen" in command:
        (folder / "xensyms.txt").write_text("ffff82d040200000 T xen_extra_version\n")
        (folder / "fleet.txt").write_text("one.livepatch\n\none.livepatch\nold.livepatch\n")
        (folder / "xen.c").write_text("int xen_extra_version(void) { return 0; }\n")
        run(["gcc", "-O2", "-ffreestanding", "-fno-pie", "-c", "xen.c"], folder)
        run(["ld", "-o", "xen-syms", "--entry=xen_extra_version", "--build-id=sha1", "xen.o"], folder)


@pytest.mark.parametrize("command", sorted({*help_examples(), *page_commands()}))
def test_command(tmp_path: Path, command: str) -> None:
    prepare(tmp_path, command)
    for word, place in PLACES.items():
        command = command.replace(word, place)
    assert "..." not in command
    env = environment(tmp_path / "bin", LPMANGLE_MANIFESTS="shipped")  # for those without -m
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    # The payloads are for another hypervisor than the one of this test: that is an answer, too.
    no_is_an_answer = "check --xen" in command or "--check" in command
    assert done.returncode in ((0, 1) if no_is_an_answer else (0,)), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    if "retrace" in command:
        said = (tmp_path / "readable.log").read_text() if "-o readable.log" in command else done.stdout
        assert "R x86_emulate.c#_get_fpu" in said
        assert said != LOG


def test_make_rule(tmp_path: Path) -> None:
    """The README's rule is the one of examples/make, and works."""
    (rule,) = re.findall(r"^```make\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "Makefile").write_text(rule)
    for folder in ("built", "out"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "examples" / "fbab204.livepatch", tmp_path / "built")
    run(["make", "out/fbab204.livepatch"], tmp_path)
    run(["lpmangle", "verify", "out/fbab204.livepatch", "--original", "built/fbab204.livepatch"], tmp_path)
    assert "up to date" in run(["make", "out/fbab204.livepatch"], tmp_path).stdout
