"""Empty Debian systems, as debootstrap makes them: prepared once, in the user's cache; each test has a copy."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

MIRROR = "http://deb.debian.org/debian"
SUITES = ("bookworm", "trixie")
# The packages in one besides those of every Debian.
PACKAGES = ("python3",)


def cache() -> Path:
    """Where they are kept. If you remove one, it is prepared again, with newer packages."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "lpmangle" / "debian"


def system(suite: str, place: Path) -> Path:
    """A copy of the system at `place`, for this test only."""
    lacking = "debootstrap and chroot need root" if os.geteuid() else ""
    lacking = lacking or ("" if shutil.which("debootstrap") else "debootstrap is not installed")
    if lacking:
        if os.environ.get("CI") == "true":
            pytest.fail(lacking)
        pytest.skip(lacking)
    subprocess.run(["cp", "-a", _prepared(suite), place], check=True)
    return place


def inside(root: Path, *command: str, code: int = 0) -> str:
    """The output of a command in the system, without a network; stdout and stderr together."""
    words = ["unshare", "--net", "chroot", str(root), *command]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert done.returncode == code, done.stdout
    return done.stdout


def _prepared(suite: str) -> Path:
    folder = cache() / suite
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left_behind in folder.parent.glob(f".{suite}.tmp-*"):
            shutil.rmtree(left_behind)
        if not folder.exists():
            work = Path(tempfile.mkdtemp(prefix=f".{suite}.tmp-", dir=folder.parent))
            root, packages = work / "root", ",".join(PACKAGES)
            command = ["debootstrap", "--variant=minbase", f"--include={packages}", suite, str(root), MIRROR]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            assert done.returncode == 0, done.stdout[-3000:]
            for name in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/locale", "usr/share/doc"):
                shutil.rmtree(root / name)
            root.rename(folder)
            shutil.rmtree(work)
    return folder
