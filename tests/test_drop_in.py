"""share/lpmangle/livepatch-build: a drop-in that scripts find in PATH instead of the real one."""

import shutil
import sys
from pathlib import Path

import pytest
from builds import STANDIN, WRAPPER, environment, is_mangled, make_build, names, options, run

BUILD = ["lpmangle", "build", "--"]
TOOL = ["livepatch-build"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With all that a build needs."""
    return make_build(tmp_path)


@pytest.fixture
def wrapped(folder: Path) -> Path:
    """A folder for PATH with the drop-in."""
    place = folder / "bin"
    place.mkdir()
    (place / "livepatch-build").symlink_to(WRAPPER)
    return place


def test_drop_in(folder: Path, wrapped: Path) -> None:
    env = environment(wrapped, LPMANGLE_FLAGS="--suffix name  --keep *calls -q")
    (folder / "a-calls").touch()  # the shell would expand *calls to this
    done = run([*TOOL, *options()], folder, env=env)
    assert done.stdout.endswith("fix.livepatch created successfully\n")
    assert "x86_emulate.c#_get_fpu_fix" in names(folder / "out" / "fix.livepatch")
    assert "x86_emulate.c#get_fpu_calls" in names(folder / "out" / "fix.livepatch")
    assert (
        run([*TOOL, *options()], folder, env=environment(wrapped), code=1).stderr
        == "ERROR: the output folder exists.\n"
    )


def test_drop_in_does_not_find_itself(folder: Path, wrapped: Path) -> None:
    """Neither through links nor as a copy, nor if lpmangle build runs it."""
    (folder / "copy").mkdir()
    shutil.copy(WRAPPER, folder / "copy" / "livepatch-build")
    (folder / "not-a-program").mkdir()
    (folder / "not-a-program" / "livepatch-build").write_text("no")
    env = environment(wrapped, folder / "copy", WRAPPER.parent, folder / "not-a-program")
    done = run([*TOOL, *options()], folder, env=env)
    assert done.stdout.count("symbols renamed") == 1
    done = run([*BUILD, *TOOL, *options(output="out2")], folder, env=env)
    assert done.stdout.count("symbols renamed") == 1
    assert done.stdout.count("already mangled") == 1
    done = run(
        [*TOOL, *options()], folder, env={**env, "LPMANGLE_LIVEPATCH_BUILD": str(wrapped / "livepatch-build")}, code=127
    )
    assert "is this script" in done.stderr


def test_drop_in_says_what_is_missing(folder: Path, wrapped: Path) -> None:
    env = {**environment(), "PATH": f"{wrapped}:/usr/bin:/bin"}
    assert "the real livepatch-build is not in PATH" in run([*TOOL], folder, env=env, code=127).stderr
    env["LPMANGLE_LIVEPATCH_BUILD"] = str(STANDIN / "livepatch-build")
    assert "lpmangle is not in PATH" in run([*TOOL], folder, env=env, code=127).stderr
    env["LPMANGLE"] = str(Path(sys.executable).parent / "lpmangle")
    run([*TOOL, *options()], folder, env=env)
    assert is_mangled(folder / "out" / "fix.livepatch")
