"""Packages of any Debian suite and architecture, downloaded by name and unpacked: nothing is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.qemu import LabError

# Used if the machine's own sources have no Debian mirror.
MIRRORS = {"debian": "http://deb.debian.org/debian/", "debian-security": "http://deb.debian.org/debian-security/"}
SOURCES = """\
Types: {types}
URIs: {debian}
Suites: {suite} {suite}-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: {types}
URIs: {security}
Suites: {suite}-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


class Packages:
    """All are unpacked into `root`. apt uses its own folders here, and does not see the machine's packages."""

    def __init__(self, folder: Path, suite: str, architecture: str, sources: bool = False) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.versions: list[str] = []
        shutil.rmtree(folder, ignore_errors=True)
        for place in (self.root, folder / "lists" / "partial", folder / "cache" / "archives" / "partial"):
            place.mkdir(parents=True)
        mirrors = _mirrors()
        text = SOURCES.format(
            types="deb deb-src" if sources else "deb",
            debian=mirrors["debian"],
            security=mirrors["debian-security"],
            suite=suite,
        )
        (folder / "suite.sources").write_text(text)
        settings = {
            "Dir::State::Lists": folder / "lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": folder / "cache",
            "Dir::Cache::pkgcache": "pkgcache.bin",  # Docker's images turn these off, and every call costs seconds
            "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
            "Dir::Etc::sourcelist": folder / "suite.sources",
            "Dir::Etc::sourceparts": "/nonexistent",
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Sandbox::User": os.environ.get("USER", "root"),  # else apt warns of folders that are ours alone
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        self.options = [f"-o{name}={value}" for name, value in settings.items()]
        self.trouble = ""
        try:
            self._apt("get", "update")
        except LabError as error:  # a mirror that is being updated may lack one of several lists: the others are enough
            self.trouble = f"; before that: {error}"

    def _apt(self, tool: str, *words: str) -> str:
        """The output of apt-get or apt-cache."""
        try:
            return call(f"apt-{tool}", *self.options, *words, cwd=self.folder)
        except LabError as error:
            raise LabError(f"{error}{self.trouble}") from None

    def depends(self, package: str, pattern: str) -> list[str]:
        """The packages that `package` depends on and whose names match."""
        listing = self._apt("cache", "depends", "--important", package)
        names = re.findall(rf"^  (?:Pre)?Depends: ({pattern})$", listing, re.MULTILINE)
        return list(dict.fromkeys(names))

    def exists(self, package: str) -> bool:
        return f"\n{package}\n" in "\n" + self._apt("cache", "pkgnames", package)

    def libraries(self, package: str) -> list[str]:
        """Xen's own libraries that `package` needs, directly or not."""
        listing = self._apt("cache", "depends", "--important", "--recurse", package)
        needed = dict[str, list[str]]()
        for block in re.split(r"^(?=\S)", listing, flags=re.MULTILINE):
            name, _, rest = block.partition("\n")
            needed[name] = re.findall(r"Depends: (libxen\S+)", rest)
        found, queue = dict[str, None](), needed[package]
        while queue:
            name = queue.pop()
            if name not in found:
                found[name] = None
                queue += needed[name]
        return list(found)

    def unpack(self, *names: str, only: Sequence[str] = ()) -> None:
        """`only`: patterns of the files to unpack."""
        self._apt("get", "download", *names)
        for archive in sorted(self.folder.glob("*.deb")):
            content = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE)
            assert content.stdout
            tar = ["tar", "-x", "-C", str(self.root), "--no-same-owner", "--wildcards", *only]
            done = subprocess.run(tar, stdin=content.stdout, capture_output=True, text=True)
            content.stdout.close()
            if content.wait() or done.returncode:
                raise LabError(f"{archive.name} cannot be unpacked: {done.stderr.strip()[-1000:]}")
            self.versions.append(archive.name)
            archive.unlink()

    def file(self, pattern: str) -> Path:
        found = self.files(pattern)
        if not found:
            raise LabError(f"{', '.join(self.versions)} contain no {pattern}")
        return found[0]

    def files(self, pattern: str) -> list[Path]:
        return sorted(path for path in self.root.glob(pattern) if path.is_file())

    def source(self, package: str) -> Path:
        """The unpacked source package with patches applied: the newest version that the archive still has."""
        listing = self._apt("cache", "showsrc", "--only-source", package)
        versions = dict.fromkeys(re.findall(r"^Version: (\S+)$", listing, re.MULTILINE))
        if not versions:
            raise SourceMissing(f"the suite has no source package {package}")
        for version in versions:  # apt lists the newest first
            for left_behind in self.folder.glob(f"{package}_*"):
                left_behind.unlink()
            try:
                self._apt("get", "source", "--download-only", f"{package}={version}")
            except LabError as error:
                problem = str(error)
                continue
            (description,) = self.folder.glob("*.dsc")
            call("dpkg-source", "--no-check", "-x", description.name, "source", cwd=self.folder)
            self.versions.append(description.name)
            return self.folder / "source"
        raise SourceMissing(f"no source package {package} can be downloaded: {problem}")


class SourceMissing(LabError):
    """The archive has not kept the source package."""


def _mirrors() -> dict[str, str]:
    """The mirrors that the machine itself uses for Debian's two archives."""
    found = dict(MIRRORS)
    for line in reversed(call("apt-get", "indextargets", "--format", "$(REPO_URI)").split()):
        archive = line.rstrip("/").rpartition("/")[2]
        if archive in found:
            found[archive] = line
    return found


def call(*command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """The output of a program. Raises LabError with the end of its error messages."""
    environment = {**(os.environ if env is None else env), "LC_ALL": "C"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        words = " ".join(word for word in command if not word.startswith("-o"))
        raise LabError(f"{words} failed: {done.stderr.strip()[-1000:]}")
    return done.stdout
