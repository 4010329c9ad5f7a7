"""`lpmangle check` and a real Xen 4.17 say the same to hundreds of uploads: verdict, errno, message, symbol.

All scenarios share one boot. LPMANGLE_SEED=NUMBER repeats those of another run; any other seed makes others.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from livepatch import Source, build_id, build_payload

from lpmangle.loader import Hypervisor
from lpmangle.loader.rules import Rule
from xen.lab import Job, Lab, boot
from xen.uploads import Step, Uploads, make_scenarios

pytestmark = pytest.mark.xen

SEED = int(os.environ.get("LPMANGLE_SEED", "1"))
FEWEST = 300
# The other rules are none that a hypervisor of version 4.17 on x86_64 can refuse by.
OF_ARM = {"arm-eabi", "thumb-symbol", "reloc-rel-arm64", "alternatives", "ex-table"}
OF_NEWER = {"alternatives-size", "alternatives-feature"}
CRASHES = {
    "symtab-link-zero", "section-wraps", "section-overrun", "reloc-target-zero", "func-name-pointer",
    "func-old-pointer", "func-nop-endbr", "section-not-loaded", "alternatives-bug", "modinfo-empty",
}  # fmt: skip
OUR_OWN = {rule for rule in Rule if not rule.errno} - CRASHES
# Xen tells what it does, at a level that a release build does not print unless it is told to.
INFORMATION = re.compile(
    r"(finished (APPLY|REVERT|REPLACE) with rc=-?\d+|: (Verifying enabled expectations for all functions"
    r"|Applying \d+ functions?|Reverting|Calling [a-z-]+ hook function( with rc=0)?))$"
)


def test_every_verdict(lab: Lab, tmp_path: Path) -> None:
    identity = build_id(lab.xen_syms)
    source = Source((Path(__file__).parent / "payloads" / "upload.c").read_text(), file="upload.c")
    base = build_payload(tmp_path / "upload.livepatch", [source], depends=identity, xen_depends=identity)
    scenarios = list(make_scenarios(SEED, base.read_bytes(), Hypervisor.read_from(lab.xen_syms.read_bytes())))
    safe = [scenario for scenario in scenarios if not scenario.crashes]
    assert len(safe) >= FEWEST

    job = write_job(safe)
    run = boot(lab, [job], timeout=400)
    (result,) = run.results[job.name]
    assert result.code == 0, f"seed {SEED}: dom0 did not live to see the end\n{run.console[-4000:]}"
    said, printed = read_output(result.output), read_console(result.console)
    problems = []
    number = 0
    for scenario in safe:
        lines: list[str] = []
        for step in scenario.steps:
            got = said[number]
            number += 1
            if got != step.errno:
                lines.append(f"{step.command} {step.name}: errno {got}, check says {step.errno} ({step.rule})")
        number += len(scenario.rest)
        for name in dict.fromkeys(step.name for step in scenario.steps):
            wanted = [line for step in scenario.steps if step.name == name for line in step.message.splitlines()]
            if printed.get(name, []) != wanted:
                lines.append(f"{name}: Xen said {printed.get(name, [])}, check says {wanted}")
        problems += [f"[{scenario.title}] {line}" for line in lines]
    steps = [step for scenario in safe for step in scenario.steps]
    print(f"seed {SEED}: {len(safe)} scenarios, {len(steps)} verdicts, {len(scenarios) - len(safe)} not sent")
    assert not problems, f"seed {SEED}: {len(problems)} differences\n" + "\n".join(problems)
    missing = set(Rule) - {step.rule for step in steps} - OF_ARM - OF_NEWER - CRASHES - OUR_OWN
    assert not missing, f"seed {SEED}: nothing was refused by {sorted(missing)}"


def write_job(scenarios: list[Uploads]) -> Job:
    """One script for all: every process in dom0 costs time."""
    files: dict[str, bytes] = {}
    lines = []
    for scenario in scenarios:
        for step in (*scenario.steps, *scenario.rest):
            if step.command == "upload":
                files[str(len(files))] = step.data
                lines.append(f"xen-livepatch upload {step.name} {len(files) - 1}; echo @")
            else:
                lines.append(f"xen-livepatch {step.command} {step.name}; echo @")
    files["script"] = ("\n".join(lines) + "\n").encode()
    return Job("check", ["sh ./script"], files)


def read_output(output: str) -> list[int]:
    """The errno of each command, 0 if it was done."""
    found = []
    for piece in output.split("@\n")[:-1]:
        error = re.search(r"^Error (\d+):", piece, re.MULTILINE)
        found.append(int(error[1]) if error else 0 if "completed" in piece else -1)
    return found


def read_console(console: str) -> dict[str, list[str]]:
    """What Xen printed about each payload, information left out."""
    printed: dict[str, list[str]] = {}
    for line in console.splitlines():
        about = re.match(r"\(XEN\) (livepatch: (\w+)[: ].*)", line)
        if about and not INFORMATION.search(line):
            printed.setdefault(about[2], []).append(about[1])
    return printed


def test_reading_console_and_output() -> None:
    assert read_output("Uploading 0... completed\n@\nUploading 1... failed\nError 22: Invalid\n@\n?@\n") == [0, 22, -1]
    assert read_console("(XEN) livepatch: u1: Not an ELF payload\nx\n") == {"u1": ["livepatch: u1: Not an ELF payload"]}
    assert Step("upload", "u1").errno == 0
