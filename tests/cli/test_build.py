"""lpmangle build, with a stand-in for livepatch-build that does its real last steps."""

import json
import os
from pathlib import Path

import pytest
from builds import CODE, STANDIN, is_mangled, make_build, names, options, run, script, write_patch

BUILD = ["lpmangle", "build", "--"]
TOOL = ["livepatch-build"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With all that a build needs."""
    return make_build(tmp_path)


def test_build(folder: Path) -> None:
    """The tool's own output, then ours; the payload is the tool's, mangled."""
    plain = run([*TOOL, *options(output="plain")], folder)
    done = run([*BUILD, *TOOL, *options()], folder)
    payload = folder / "out" / "fix.livepatch"
    suffix = json.loads(Path(f"{payload}.manifest.json").read_text())["suffix"]
    assert done.stdout == f"{plain.stdout}out/fix.livepatch: 2 symbols renamed, suffix {suffix}\n"
    assert done.stderr == plain.stderr == ""
    assert is_mangled(payload)
    assert not is_mangled(folder / "plain" / "fix.livepatch")
    assert os.access(payload, os.X_OK)
    run(["lpmangle", "verify", str(payload), "--original", "plain/fix.livepatch"], folder)
    run(["lpmangle", "restore", str(payload)], folder)
    assert payload.read_bytes() == (folder / "plain" / "fix.livepatch").read_bytes()


def test_options_of_lpmangle(folder: Path) -> None:
    command = ["lpmangle", "build", "--suffix", "name", "--keep", "*calls", "-v", *TOOL, *options()]
    assert "x86_emulate.c#_get_fpu -> x86_emulate.c#_get_fpu_fix\n" in run(command, folder).stdout
    assert "x86_emulate.c#get_fpu_calls" in names(folder / "out" / "fix.livepatch")
    quiet = run(["lpmangle", "build", "-q", "--", *TOOL, *options(output="quiet")], folder)
    assert quiet.stdout.endswith("fix.livepatch created successfully\n")
    assert is_mangled(folder / "quiet" / "fix.livepatch")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--suffix=text:a#b", "suffix 'a#b' cannot be part"),
        ("--suffix=buildid:3", "--suffix buildid:3: N must be a number"),
        ("--suffix=fix", "--suffix 'fix' is not one of"),
        ("--template={symbol}", "template '{symbol}' must contain {suffix}"),
        (f"--suffix=text:{'a' * 120}", "bytes for the name itself"),
    ],
)
def test_wrong_options_are_said_before_the_build(folder: Path, option: str, said: str) -> None:
    done = run(["lpmangle", "build", option, "--", *TOOL, *options()], folder, code=2)
    assert said in done.stderr
    assert not (folder / "out").exists()


def test_what_lpmangle_refuses_is_left_as_the_linker_left_it(folder: Path) -> None:
    signed = script(folder, f'{STANDIN}/livepatch-build "$@" && echo SIGNATURE >>out2/fix.livepatch', "livepatch-build")
    done = run([*BUILD, signed, *options(output="out2")], folder, code=3)
    assert "follow its last section" in done.stderr
    assert not is_mangled(folder / "out2" / "fix.livepatch")
    run(["lpmangle", "build", "--force", "--", signed, *options(output="out2"), "-k", "build"], folder)
    assert is_mangled(folder / "out2" / "fix.livepatch")


def test_several_files_and_a_new_one(folder: Path) -> None:
    """Symbols of a file that is new in the patch have no file# prefix, and are renamed, too."""
    patch = write_patch(folder / "fix.patch", code=CODE.replace("type & 7", "type & 3"))
    added = ["static int __attribute__((noipa, used)) lp_helper(int x)", "{", "    return x + 1;", "}"]
    lines = "".join(f"+{line}\n" for line in added)
    patch.write_text(f"{patch.read_text()}--- /dev/null\n+++ b/xen/new.c\n@@ -0,0 +1,{len(added)} @@\n{lines}")
    run(["lpmangle", "build", "--suffix", "name", *TOOL, *options()], folder)
    assert "lp_helper_fix" in names(folder / "out" / "fix.livepatch")
