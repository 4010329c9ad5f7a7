"""scripts/xen-lab: the example that its --help shows, line by line, and README's, which is its last line."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from builds import environment

from lab.labs import LABS, Lab
from lab.scenario import ROOT


def xen_lab(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "scripts" / "xen-lab", *words], capture_output=True, text=True)


def test_a_lab_that_there_is_not() -> None:
    done = xen_lab("--machine", "arm32", "--xen", "4.14", "--xen-syms")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no lab with Xen 4.14 on arm32; there are x86_64-4.17, " in done.stderr


@pytest.mark.xen
def test_which_lab(lab: Lab) -> None:
    done = xen_lab("--machine", lab.machine.name, "--xen", lab.xen, "--xen-syms")
    assert done.stdout == f"{lab.xen_syms}\n", done.stderr


@pytest.mark.xen
@pytest.mark.only(lambda lab: lab == LABS[0], reason="the example is for that one")
def test_the_example_of_its_help(lab: Lab, tmp_path: Path) -> None:
    shown = subprocess.run([ROOT / "scripts" / "xen-lab", "--help"], capture_output=True, text=True, check=True).stdout
    commands = re.findall(r"^    ((?:scripts|examples|lpmangle).*?)(?: {3,}.*)?$", shown, re.MULTILINE)
    ran = [
        subprocess.run(
            ["bash", "-c", command.replace("/tmp", str(tmp_path))],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
        )
        for command in commands
    ]
    path, rebuilt, refused, mangled, taken = ran
    assert path.stdout == f"{lab.xen_syms}\n"
    assert (rebuilt.returncode, mangled.returncode) == (0, 0), rebuilt.stderr + mangled.stderr
    assert refused.returncode == 1, refused.stderr
    assert "livepatch: fbab204: duplicate new symbol: x86_emulate.c#_get_fpu" in refused.stdout
    assert taken.returncode == 0, taken.stdout + taken.stderr
    assert taken.stdout.endswith("extra version: -fbab204.2\n")
