"""Without a network: the archive and the packages, their contents, and each in an empty Debian."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import debian
import pytest
from builds import ROOT, copied, environment, run
from commands import EXAMPLES
from hypervisor import SYMBOLS

from lpmangle import __version__

NAMES = {"bundle": "lpmangle-{}-x86_64.tar.gz", "deb": "lpmangle_{}_amd64.deb", "rpm": "lpmangle-{}-1.x86_64.rpm"}
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("offline") / "clone")


@pytest.fixture(scope="module")
def made(clone: Path) -> dict[str, Path]:
    """What `make bundle deb rpm` makes, by kind."""
    subprocess.run(["scripts/package", "dist", *NAMES], cwd=clone, check=True)
    return {kind: clone / "dist" / name.format(__version__) for kind, name in NAMES.items()}


@pytest.fixture(scope="module")
def bundle(made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked archive."""
    folder = tmp_path_factory.mktemp("bundle")
    run(["tar", "-xf", str(made["bundle"])], folder)
    (only,) = folder.iterdir()
    return only


def install(bundle: Path, *words: Path | str, code: int = 0) -> str:
    """The output of the archive's script; its environment has neither Python packages nor an index."""
    command = [sys.executable, "-I", str(bundle / "install"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__"}


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in files(folder)}


def test_packages_are_reproducible(made: dict[str, Path], clone: Path, tmp_path: Path) -> None:
    """Made again from the same commit, later, with another folder, umask, time zone and locale, and a stray file."""
    other = tmp_path / "another" / "folder"
    subprocess.run(["git", "clone", "-q", clone, other], check=True)
    (other / ".venv").symlink_to(ROOT / ".venv")
    (other / "packaging" / "stray").write_text("stray")
    strange = {"SOURCE_DATE_EPOCH": "1000000000", "TZ": "Pacific/Auckland", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    words = ["sh", "-c", f"umask 077; scripts/package {tmp_path / 'out'} {' '.join(NAMES)}"]
    subprocess.run(words, cwd=other, env={**os.environ, **strange}, check=True)
    for kind, path in made.items():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), kind
    assert len(list((tmp_path / "out").iterdir())) == len(NAMES)


def test_the_archive_has_what_is_locked(bundle: Path) -> None:
    """Everything in requirements.lock for each Python, with the right hashes, and our own wheel; sums of all files."""
    lock = (ROOT / "requirements.lock").read_text()
    wheels = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (bundle / "wheels").iterdir()}
    (ours,) = [name for name in wheels if name.startswith("lpmangle-")]
    assert all(f"sha256:{digest}" in lock for name, digest in wheels.items() if name != ours)
    projects = {name.partition("-")[0] for name in wheels}
    assert projects == {"lpmangle", *re.findall(r"^([\w-]+)==", lock, re.MULTILINE)}
    sums = {name: digest for digest, name in map(str.split, (bundle / "SHA256SUMS").read_text().splitlines())}
    assert sums == {
        name: hashlib.sha256(data).hexdigest() for name, data in content(bundle).items() if name != "SHA256SUMS"
    }


def test_each_python_has_all(bundle: Path, tmp_path: Path) -> None:
    """Each has one folder for each project, and compiled modules are for that Python."""
    install(bundle, "--root", tmp_path, "/opt/x")
    lib = tmp_path / "opt" / "x" / "lib" / "lpmangle"
    assert sorted(path.name for path in lib.glob("python3.*")) == [f"python{version}" for version in PYTHONS]
    for version in PYTHONS:
        folders = (lib / f"python{version}").read_text().split()
        projects = [name.partition("-")[0] for name in folders]
        assert sorted(projects) == sorted({path.name.partition("-")[0] for path in lib.glob("*-*")})
        tag = "cp" + version.replace(".", "")
        for name in folders:
            python, abi = name.split("-")[2:]
            assert python in ("py3", tag) or (abi == "abi3" and int(python[3:]) <= int(tag[3:])), name


def test_install(bundle: Path, tmp_path: Path) -> None:
    """Also over an older version; everybody can run it, whatever the umask is."""
    place = tmp_path / "opt"
    before = os.umask(0o077)
    try:
        assert install(bundle, place) == f"lpmangle {__version__} is in {place}/bin/lpmangle\n"
    finally:
        os.umask(before)
    assert {oct(path.stat().st_mode & 0o777) for path in (place, *place.rglob("*.py"), *place.glob("*"))} <= {
        "0o755", "0o644"
    }  # fmt: skip
    first = content(place)
    (core,) = (place / "lib" / "lpmangle").glob("click-*/click/core.py")
    core.write_text("raise SystemExit(1)")
    run([str(place / "bin" / "lpmangle"), "--version"], tmp_path, code=1)
    install(bundle, place)
    assert content(place) == first
    assert list(tmp_path.iterdir()) == [place]
    # Neither the user's variables nor files in the current folder have an effect.
    (tmp_path / "click.py").write_text("raise SystemExit('wrong')")
    done = run([str(place / "bin" / "lpmangle"), "--version"], tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert done.stdout.startswith(f"lpmangle {__version__}")


def test_install_costs_no_file(bundle: Path, tmp_path: Path) -> None:
    mine, place = tmp_path / "mine", tmp_path / "opt"
    mine.mkdir()
    (mine / "file").write_text("mine")
    said = install(bundle, mine, code=1)
    assert said == f"install: {mine}: exists, and is not lpmangle's; name a new folder\n"
    install(bundle, place)
    (place / "share" / "notes").write_text("mine")
    assert f"install: {place}/share/notes: does not belong to lpmangle" in install(bundle, place, code=1)
    (place / "share" / "notes").unlink()
    (place / "share" / "link").symlink_to("man")
    assert f"install: {place}/share/link: does not belong to lpmangle" in install(bundle, place, code=1)
    (place / "share" / "link").unlink()
    before = content(tmp_path)
    assert install(bundle, place, "--python", "/no/python", code=1) == "install: /no/python: is not a program\n"
    assert "lpmangle does not run here, so nothing was" in install(bundle, place, "--python", "/bin/false", code=1)
    assert install(bundle, mine / "file" / "x", code=1) == f"install: {mine / 'file'}: File exists\n"
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    wheel = next((copy / "wheels").glob("click-*"))
    wheel.write_bytes(wheel.read_bytes()[:-1])
    assert f"install: wheels/{wheel.name}: sha256 is " in install(copy, tmp_path / "new", code=1)
    wheel.unlink()
    assert f"install: wheels/{wheel.name}: No such file or directory\n" in install(copy, tmp_path / "new", code=1)
    shutil.rmtree(copy)
    assert content(tmp_path) == before


@pytest.mark.parametrize("suite", debian.SUITES)
def test_in_an_empty_debian(made: dict[str, Path], bundle: Path, tmp_path: Path, suite: str) -> None:
    """All three run the demo, with the system's Python and without a network."""
    root = debian.system(suite, tmp_path / suite)
    for path in made.values():
        shutil.copy(path, root / "root")
    before = files(root / "usr")

    debian.inside(root, "dpkg", "-i", f"/root/{made['deb'].name}")
    _demo(root, "/usr")
    cached = list((root / "usr/lib/lpmangle").glob("lpmangle-*/lpmangle/__pycache__/*"))
    assert cached, "compiled when it is installed, not whenever it runs"
    for name in (
        "share/man/man1/lpmangle-check.1",
        "share/bash-completion/completions/lpmangle",
        "share/zsh/vendor-completions/_lpmangle",
        "share/fish/vendor_completions.d/lpmangle.fish",
        "share/lpmangle/livepatch-build",
        "share/doc/lpmangle/copyright",
    ):
        assert (root / "usr" / name).is_file(), name
    assert debian.inside(root, "dpkg", "--verify", "lpmangle") == ""
    debian.inside(root, "dpkg", "-r", "lpmangle")
    assert files(root / "usr") == before
    assert not (root / "usr" / "lib" / "lpmangle").exists()

    unpack = f"mkdir {root}/rpm && cd {root}/rpm && rpm2cpio {made['rpm']} | cpio -idm --quiet"
    subprocess.run(["bash", "-euo", "pipefail", "-c", unpack], check=True)
    _demo(root, "/rpm/usr")
    assert (root / "rpm/usr/share/zsh/site-functions/_lpmangle").is_file()

    debian.inside(root, "sh", "-ec", f"cd; tar -xf {made['bundle'].name}; python3 {bundle.name}/install /opt/lpmangle")
    _demo(root, "/opt/lpmangle")


def _demo(root: Path, prefix: str) -> None:
    demo = f"{prefix}/share/doc/lpmangle/scripts/demo"
    said = debian.inside(root, "sh", "-c", f"PATH={prefix}/bin:$PATH exec {demo}")
    assert said.endswith("identical\n"), said  # the original, restored


def test_rpm_says_what_it_needs(made: dict[str, Path]) -> None:
    said = subprocess.run(["rpm", "-qp", "--requires", made["rpm"]], capture_output=True, text=True, check=True).stdout
    assert {"python3 >= 3.11", "python3 < 3.15"} <= set(said.splitlines())
    listed = subprocess.run(["rpm", "-qpl", made["rpm"]], capture_output=True, text=True, check=True).stdout.split()
    assert {"/usr/bin/lpmangle", "/usr/lib/lpmangle", "/usr/share/man/man1/lpmangle.1"} <= set(listed)
    assert {"/usr", "/usr/bin", "/usr/lib", "/usr/share/man/man1"}.isdisjoint(listed)


# examples/ci: their shell commands, unchanged


def parsed(path: Path) -> Any:
    """A YAML file, as Debian's PyYAML reads it."""
    program = "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))"
    with path.open() as file:
        done = subprocess.run(["/usr/bin/python3", "-c", program], stdin=file, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def checkout(made: dict[str, Path], tmp_path: Path) -> Path:
    """A vendor's repository after the build, without what the variables name."""
    folder = tmp_path / "checkout"
    for name in ("built", "shipped", "hypervisor", "tools"):
        (folder / name).mkdir(parents=True)
    shutil.copy(EXAMPLES / "fbab204.livepatch", folder / "built")
    lines = (b"%016x T %s\n" % (address, name) for name, address in SYMBOLS.items())
    (folder / "hypervisor" / "xen-syms").write_bytes(b"".join(lines))
    return folder


def variables(given: dict[str, str], made: dict[str, Path], checkout: Path, *, collides: bool) -> dict[str, str]:
    """The job's variables, with their files; the loaded payload collides with the mangled one only if `collides`."""
    shutil.copy(made["bundle"], checkout / given["BUNDLE"])
    loaded = checkout / given["LOADED"]
    run(["lpmangle", "--scope", "new", "-o", str(loaded), str(EXAMPLES / loaded.name)], checkout, env=environment())
    if collides:
        shutil.copy(checkout / "built" / given["PAYLOAD"], loaded)
        run(["lpmangle", "--scope", "new", str(loaded)], checkout, env=environment())
    return {"HOME": str(checkout.parent / "home"), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **given}


def published(checkout: Path, paths: str, *, refused: bool) -> None:
    out = checkout / paths
    assert {path.name for path in out.iterdir()} == {
        *("fbab204.livepatch", "fbab204.livepatch.manifest.json"),
        *("show.txt", "check.txt", "check.json", "check.xml", "sheet.html"),
    }
    (verdict,) = json.loads((out / "check.json").read_text())["payloads"]
    assert verdict["verdict"] == ("refused" if refused else "accepted")
    assert ("refused" in (out / "check.txt").read_text()) == refused
    assert ("<failure" in (out / "check.xml").read_text()) == refused
    assert "x86_emulate.c#_get_fpu" in (out / "show.txt").read_text()


@pytest.mark.parametrize("refused", [False, True], ids=["accepted", "refused"])
def test_github_workflow(made: dict[str, Path], checkout: Path, refused: bool) -> None:
    """Each step is a shell of its own, as `bash -e`; GITHUB_PATH is read after each."""
    job = parsed(EXAMPLES / "ci" / "github-workflow.yml")["jobs"]["payload"]
    settings = variables(job["env"], made, checkout, collides=refused)
    more = checkout.parent / "path"
    more.touch()
    failed = False
    for step in job["steps"]:
        if "run" in step and (not failed or step.get("if") == "always()"):
            path = ":".join([*more.read_text().split(), settings["PATH"]])
            shell = ["bash", "-e", "-c", step["run"]]
            done = subprocess.run(shell, cwd=checkout, env={**settings, "PATH": path, "GITHUB_PATH": str(more)})
            failed = failed or done.returncode != 0
            assert not failed or refused, step["name"]
    assert failed == refused
    (upload,) = [step for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
    assert upload["if"] == "always()"
    published(checkout, upload["with"]["path"], refused=refused)


@pytest.mark.parametrize("refused", [False, True], ids=["accepted", "refused"])
def test_gitlab_job(made: dict[str, Path], checkout: Path, refused: bool) -> None:
    """before_script and script share a shell; after_script has its own, and always runs."""
    job = parsed(EXAMPLES / "ci" / "gitlab-ci.yml")["livepatch"]
    settings = variables(job["variables"], made, checkout, collides=refused)
    for lines, code in ((job["before_script"] + job["script"], int(refused)), (job["after_script"], 0)):
        shell = ["bash", "-eo", "pipefail", "-c", "\n".join(lines)]
        assert subprocess.run(shell, cwd=checkout, env=settings).returncode == code
    assert job["artifacts"]["when"] == "always"
    (path,) = job["artifacts"]["paths"]
    published(checkout, path, refused=refused)
    assert (checkout / job["artifacts"]["reports"]["junit"]).exists()
