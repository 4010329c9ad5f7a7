"""The real order: built, mangled, signed, checked, uploaded, replaced; and a trace of it turned back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from livepatch import Source, build_id
from signing import key, public

from lab.boot import boot
from lab.labs import Lab
from lab.scenario import ROOT, Scenario
from lab.stack import NOT_ON_ARM

pytestmark = [pytest.mark.xen, pytest.mark.one_lab]

PAYLOADS = Path(__file__).parent / "payloads"
SIGN = ROOT / "examples" / "vendor" / "sign-payload"


@pytest.mark.only(lambda lab: lab.machine.x86, reason=NOT_ON_ARM)
def test_signed(lab: Lab, tmp_path: Path) -> None:
    """A fault in the second payload: the hypervisor dies, so it has a boot of its own."""
    xen = Scenario("signed", lab, tmp_path)
    sources = [(ROOT / "examples" / "617712b.c"), PAYLOADS / "crash.c"]
    built = [
        xen.build(name, Source(path.read_text(), plain=("lp_helper",)))
        for name, path in zip(("617712b", "crash"), sources, strict=True)
    ]
    first, second = (xen.mangle(payload) for payload in built)
    for payload in (first, second):
        subprocess.run([SIGN, key(), payload], check=True)
        xen.lpmangle("verify", "--key", public(key()), payload, says="signed since (.note.Xen.signature, RSA, SHA-256)")
    checked = ("check", "--key", public(key()), "--xen", lab.xen_syms)
    xen.lpmangle(*checked, first, second, says=f"{second}: its signature is valid")
    xen.lpmangle("check", "--xen", lab.xen_syms, "--loaded", first, second, says="then: xen-livepatch replace crash")
    xen.load(first)
    xen.extra("-617712b.1")
    xen.replace(second)
    xen.listed("617712b CHECKED", "crash")
    xen.run("cat /sys/hypervisor/version/extra")
    run = boot(lab, [xen.job()])

    *before, fault, _ = run.results["signed"]
    assert len(before) == 6
    for step, result in zip(xen.steps, before, strict=False):
        assert [wrong for check in step.checks if (wrong := check(result))] == [], run.console
    assert fault.code == -1, run.console  # dom0 did not live to see it
    log = tmp_path / "console"
    log.write_text(fault.console)
    retraced = xen.lpmangle("retrace", "-m", second, log)
    suffix = build_id(second).hex()
    for name in ("x86_emulate.c#_get_fpu", "lp_helper"):
        assert f"{name}_{suffix}+0x" in fault.console
        assert f"{name}+0x" in retraced
    assert suffix not in retraced
    original = tmp_path / "original"
    xen.lpmangle("restore", "-o", original, second)
    assert original.read_bytes() == built[1].read_bytes()
