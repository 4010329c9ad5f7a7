"""What is shipped: sdist and wheel, what a wheel installs, and the generated pages."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from builds import ROOT, STANDIN, copied, is_mangled, make_tree, options, run, write_patch
from shells import SHELLS, completed

from lpmangle.cli.commands import COMMANDS

PYTHON = sys.executable


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("packaging") / "clone")


@pytest.fixture(scope="module")
def dist(clone: Path) -> dict[str, Path]:
    """What `make dist` makes: `sdist` and `wheel`."""
    run(["scripts/dist"], clone)
    sdist, wheel = sorted((clone / "dist").iterdir(), key=lambda path: path.suffix)
    return {"sdist": sdist, "wheel": wheel}


@pytest.fixture(scope="module")
def installed(dist: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv with only the wheel and the packages of requirements.lock, away from the clone."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    run([PYTHON, "-m", "venv", str(venv)], venv.parent)
    pip = [str(venv / "bin" / "pip"), "-q", "install"]
    run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", str(ROOT / "requirements.lock")], venv)
    run([*pip, "--no-index", "--no-deps", str(dist["wheel"])], venv)
    return venv


def in_path(venv: Path, **variables: str) -> dict[str, str]:
    return {"HOME": str(venv.parent), "LC_ALL": "C.UTF-8", "PATH": f"{venv}/bin:/usr/bin:/bin", **variables}


def contents(sdist: Path) -> dict[str, bytes]:
    with tarfile.open(sdist) as archive:
        files = {member.name.partition("/")[2]: archive.extractfile(member) for member in archive if member.isfile()}
        return {name: file.read() for name, file in files.items() if file}


# sdist and wheel


def test_dist_is_reproducible(dist: dict[str, Path], tmp_path: Path) -> None:
    """In another folder, with other times, modes, locale and variables, and with stray files."""
    other = copied(tmp_path / "another" / "clone")
    for name in ("lpmangle/stray.py", "share/stray", "stray.livepatch", "lpmangle/__pycache__/stray.pyc"):
        (other / name).parent.mkdir(exist_ok=True)
        (other / name).write_text("stray")
    for path in (other / "lpmangle").iterdir():
        os.utime(path, (10**9, 10**9))
    strange = {"SOURCE_DATE_EPOCH": "1000000000", "TZ": "Pacific/Auckland", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "7"}
    run(["sh", "-c", "umask 077; scripts/dist out"], other, env={**os.environ, **strange})
    for built in dist.values():
        assert (other / "out" / built.name).read_bytes() == built.read_bytes()
    assert len(list((other / "out").iterdir())) == 2


def test_sdist_has_what_git_has(dist: dict[str, Path], clone: Path) -> None:
    """It includes tests, examples and lock files, so that packagers can test it."""
    listed = subprocess.run(["git", "ls-files"], cwd=clone, capture_output=True, text=True, check=True).stdout
    found = contents(dist["sdist"])
    assert set(found) == {*listed.splitlines(), "PKG-INFO"}
    assert all(found[name] == (clone / name).read_bytes() for name in listed.splitlines())


def test_wheel_of_the_tree_is_that_of_the_sdist(dist: dict[str, Path], clone: Path, tmp_path: Path) -> None:
    run([PYTHON, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], clone)
    assert (tmp_path / dist["wheel"].name).read_bytes() == dist["wheel"].read_bytes()


def test_wheel_has_the_package_and_share(dist: dict[str, Path], clone: Path) -> None:
    with zipfile.ZipFile(dist["wheel"]) as wheel:
        found = {re.sub(r"^lpmangle-[^/]*\.(data/data|dist-info)/", "", name) for name in wheel.namelist()}
    listed = subprocess.run(["git", "ls-files", "lpmangle", "share"], cwd=clone, capture_output=True, text=True).stdout
    metadata = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert found == {*listed.splitlines(), *metadata}
    assert {"lpmangle/py.typed", "lpmangle/manifest/manifest.schema.json"} <= found


def test_locks_cover_the_project() -> None:
    """Each named requirement is locked with hashes; what two locks have in common is the same."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    wanted = {
        "requirements.lock": project["project"]["dependencies"],
        "requirements-build.lock": [*project["build-system"]["requires"], *groups["build"]],
        "requirements-dev.lock": [*project["project"]["dependencies"], *groups["build"], *groups["test"]],
    }
    everything = locked("requirements-dev.lock")
    for name, requirements in wanted.items():
        found = locked(name)
        assert {re.split(r"[^\w-]", one)[0] for one in requirements} <= set(found), name
        assert found.items() <= everything.items(), name


def locked(name: str) -> dict[str, str]:
    """What a lock file says of each package: version, marker and hashes."""
    entries = re.split(r"\n(?=\w)", (ROOT / name).read_text().partition("\n")[2])
    found = {entry.partition("==")[0]: entry.rstrip() for entry in entries if "==" in entry}
    assert all("--hash=sha256:" in entry for entry in found.values())
    return found


# what a wheel installs


def test_installed_demo(installed: Path, dist: dict[str, Path], tmp_path: Path) -> None:
    """scripts/demo and the examples as the sdist has them, the lpmangle of the wheel."""
    run(["tar", "-xf", str(dist["sdist"])], tmp_path)
    (source,) = tmp_path.iterdir()
    shutil.rmtree(source / "lpmangle")
    done = run(["scripts/demo"], source, env=in_path(installed))
    assert done.stdout.endswith("identical\n")
    assert done.stderr == ""
    run([str(installed / "bin" / "pip"), "check"], tmp_path)
    assert "make demo" in run(["scripts/demo"], source, env={"PATH": "/usr/bin:/bin"}, code=127).stderr


def test_installed_in_a_folder_with_a_blank(dist: dict[str, Path], tmp_path: Path) -> None:
    """As workspaces of build servers have them. (The common call needs no other package.)"""
    venv, payload = tmp_path / "a folder" / "venv", tmp_path / "fbab204.livepatch"
    run([PYTHON, "-m", "venv", str(venv)], tmp_path)
    run([str(venv / "bin" / "pip"), "-q", "install", "--no-index", "--no-deps", str(dist["wheel"])], tmp_path)
    shutil.copyfile(ROOT / "examples" / payload.name, payload)
    run([str(venv / "bin" / "lpmangle"), str(payload)], tmp_path)
    assert is_mangled(payload)


def test_installed_drop_in(installed: Path, tmp_path: Path) -> None:
    """It is not a command of the venv, where it would hide the real one; users put its folder into PATH."""
    make_tree(tmp_path / "tree")
    (tmp_path / "config").touch()
    write_patch(tmp_path / "fix.patch")
    found = shutil.which("livepatch-build", path=f"{installed}/bin:{STANDIN}")
    assert found == str(STANDIN / "livepatch-build")
    path = f"{installed}/share/lpmangle:{STANDIN}:{installed}/bin:/usr/bin:/bin"
    run(["livepatch-build", *options()], tmp_path, env=in_path(installed, PATH=path))
    assert is_mangled(tmp_path / "out" / "fix.livepatch")


@pytest.mark.parametrize("name", ["lpmangle", *(f"lpmangle-{command}" for command in COMMANDS)])
def test_installed_man_page(installed: Path, name: str) -> None:
    done = run(["man", "--warnings", name], installed, env=in_path(installed, MANPAGER="cat", MANWIDTH="100"))
    assert done.stderr == ""
    assert done.stdout.startswith(f"{name.upper()}(1)")


@pytest.mark.parametrize("shell", SHELLS)
def test_installed_completion(installed: Path, tmp_path: Path, shell: str) -> None:
    for name in ("fbab204.livepatch", "xen-syms"):
        (tmp_path / name).touch()
    lines = {
        "lpmangle ch": "lpmangle check ",
        "lpmangle fb": "lpmangle fbab204.livepatch ",
        "lpmangle --dry": "lpmangle --dry-run ",
        "lpmangle --suffix name fb": "lpmangle --suffix name fbab204.livepatch ",
        "lpmangle --scope n": "lpmangle --scope new ",
        "lpmangle --suffix na": "lpmangle --suffix name ",
        "lpmangle @xen": "lpmangle @xen-syms ",
        "lpmangle verify @xen": "lpmangle verify @xen-syms ",
        "lpmangle check --xen-version 4.2": "lpmangle check --xen-version 4.2",
        "lpmangle check --xen-version 4.14": "lpmangle check --xen-version 4.14 ",
        "lpmangle check --vendor x": "lpmangle check --vendor xenserver ",
        "lpmangle build -- readel": "lpmangle build -- readelf ",
        "lpmangle help ver": "lpmangle help verify ",
        "lpmangle query --for": "lpmangle query --format ",
        "lpmangle query _get_fpu -m fb": "lpmangle query _get_fpu -m fbab204.livepatch ",
        "lpmangle catalog rem": "lpmangle catalog remove ",
        "lpmangle build --check --xen xe": "lpmangle build --check --xen xen-syms ",
    }
    path = in_path(installed)["PATH"]
    assert completed(shell, list(lines), path, tmp_path, installed / "share") == list(lines.values())


@pytest.mark.parametrize("shell", SHELLS)
def test_readme_completion(installed: Path, tmp_path: Path, shell: str) -> None:
    """The line for a shell's start-up file, where the installed completions are not found."""
    (line,) = re.findall(rf"^.*LPMANGLE_COMPLETE={shell}_source.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    # Through a script: bash-completion looks beside the folder of the command itself, too.
    (tmp_path / "lpmangle").write_text(f'#!/bin/sh\nexec {installed}/bin/lpmangle "$@"\n')
    (tmp_path / "lpmangle").chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    assert completed(shell, ["lpmangle ch"], path, tmp_path) == ["lpmangle ch"]
    assert completed(shell, ["lpmangle ch"], path, tmp_path, setting=line) == ["lpmangle check "]


# pages that are made


def test_man_pages_are_current(tmp_path: Path) -> None:
    run([PYTHON, "scripts/man-pages", str(tmp_path)], ROOT)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_text() for path in (ROOT / "share" / "man" / "man1").iterdir()}
    assert made == kept, "run `make man`"


def test_man_pages_say_what_help_says() -> None:
    text = (ROOT / "share" / "man" / "man1" / "lpmangle-mangle.1").read_text()
    rendered = run(["mandoc", "-T", "utf8", "-O", "width=200"], ROOT, stdin=text).stdout
    plain = " ".join(re.sub(".\b", "", rendered).split())
    shown = run([PYTHON, "-m", "lpmangle", "mangle", "--help"], ROOT).stdout
    for word in set(shown.split()) - {"Usage:", "Examples:", "Options:"}:
        assert word in plain
    assert "find build -name '*.livepatch' >list; lpmangle @list" in plain


@pytest.mark.parametrize("page", sorted((ROOT / "share" / "man" / "man1").iterdir()), ids=lambda page: page.stem)
def test_man_page_is_clean(page: Path) -> None:
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True)
    complaints = [line for line in done.stdout.splitlines() if "missing date" not in line]  # it has no date on purpose
    assert complaints == []


def test_licences_are_current() -> None:
    made = run([PYTHON, "scripts/licences"], ROOT).stdout
    assert made == (ROOT / "docs" / "licences.md").read_text(), "run `make licences`"
