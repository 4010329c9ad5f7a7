"""What the tests of builds share: a stand-in for livepatch-build, a tree and patches for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from commands import run_lpmangle

ROOT = Path(__file__).parent.parent
STANDIN = ROOT / "tests" / "data" / "livepatch-build-tools"
WRAPPER = ROOT / "share" / "lpmangle" / "livepatch-build"
DEPENDS = "ab" * 20
BASE = "/* what the patch is for */\n"
CODE = """\
#include "livepatch.h"

static int get_fpu_calls;

LOCAL int _get_fpu(int type)
{
    get_fpu_calls++;
    return type & 7;
}

const char *xen_extra_version(void)
{
    _get_fpu(get_fpu_calls);
    return VERSION;
}

OVERRIDE(xen_extra_version);
"""


def environment(*folders: Path | str, **variables: str) -> dict[str, str]:
    """The environment with the stand-in for livepatch-build and our lpmangle in PATH, after `folders`."""
    path = [*map(str, folders), str(STANDIN), str(Path(sys.executable).parent), os.environ["PATH"]]
    return {**os.environ, "PATH": ":".join(path), **variables}


def copied(folder: Path) -> Path:
    """A clone with the files as they are here, including those that are not committed."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for command in ("init -q", "add -A", "-c user.name=x -c user.email=x@example.org commit -qm x"):
        subprocess.run(["git", *command.split()], cwd=folder, check=True)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


def make_tree(folder: Path) -> Path:
    """The smallest Xen tree that the stand-in accepts."""
    (folder / "xen").mkdir(parents=True)
    (folder / "xen" / "x86_emulate.c").write_text(BASE)
    (folder / "xen" / "livepatch.h").write_bytes((ROOT / "examples" / "livepatch.h").read_bytes())
    return folder


def make_build(folder: Path) -> Path:
    """Everything that a build of fix.patch needs (`options`)."""
    make_tree(folder / "tree")
    write_patch(folder / "fix.patch")
    (folder / "config").touch()
    return folder


def script(folder: Path, text: str, name: str = "tool") -> str:
    """A bash script as a program in `folder`."""
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}")
    path.chmod(0o755)
    return str(path)


def write_patch(path: Path, version: str = "-patched", code: str = CODE) -> Path:
    """The patch that turns the tree's file into CODE."""
    lines = code.replace("VERSION", f'"{version}"').splitlines()
    added = "".join(f"+{line}\n" for line in lines)
    head = f"--- a/xen/x86_emulate.c\n+++ b/xen/x86_emulate.c\n@@ -1 +1,{1 + len(lines)} @@\n"
    path.write_text(f"{head} {BASE}{added}")
    return path


def options(patch: str | Path = "fix.patch", output: str | Path = "out") -> list[str]:
    """The options of livepatch-build that a user gives."""
    return [
        *("-s", "tree", "-p", str(patch), "-c", "config", "-o", str(output)),
        *("--depends", DEPENDS, "--xen-depends", DEPENDS),
    ]


def run(
    command: list[str], cwd: Path, *, code: int = 0, env: dict[str, str] | None = None, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command; its exit code must be `code`, and no traceback may show."""
    env = env or environment()
    if command[0] == "lpmangle":
        done = run_lpmangle(command[1:], cwd=cwd, env=env, stdin=stdin)
    else:
        done = subprocess.run(command, cwd=cwd, env=env, input=stdin, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def names(payload: Path) -> list[str]:
    """The names in a payload's symbol table, by nm."""
    return subprocess.run(["nm", "-j", payload], capture_output=True, text=True, check=True).stdout.splitlines()


def is_mangled(payload: Path) -> bool:
    """Whether the static function of CODE has a new name; the manifest must exist exactly then."""
    found = [name for name in names(payload) if name.startswith("x86_emulate.c#_get_fpu")]
    mangled = found != ["x86_emulate.c#_get_fpu"]
    assert len(found) == 1
    assert Path(f"{payload}.manifest.json").exists() is mangled
    return mangled
