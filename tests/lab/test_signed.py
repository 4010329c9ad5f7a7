"""The real order: built, mangled, signed, checked, uploaded, replaced; and a trace of it turned back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from livepatch import Source, build_id
from signing import key, public

from lab.scenario import ROOT, Scenario, Shared, scenarios_of, x86_only
from lab.stack import NOT_ON_ARM

pytestmark = pytest.mark.xen

PAYLOADS = Path(__file__).parent / "payloads"
SIGN = ROOT / "examples" / "vendor" / "sign-payload"


@x86_only(NOT_ON_ARM)
def signed(xen: Scenario) -> None:
    """The second payload has a fault: the hypervisor dies."""
    sources = [(ROOT / "examples" / "617712b.c"), PAYLOADS / "crash.c"]
    built = [
        xen.build(name, Source(path.read_text(), plain=("lp_helper",)))
        for name, path in zip(("617712b", "crash"), sources, strict=True)
    ]
    first, second = (xen.mangle(payload) for payload in built)
    for payload in (first, second):
        subprocess.run([SIGN, key(), payload], check=True)
        xen.lpmangle("verify", "--key", public(key()), payload, says="signed since (.note.Xen.signature, RSA, SHA-256)")
    checked = ("check", "--key", public(key()), "--xen", xen.xen_syms)
    xen.lpmangle(*checked, first, second, says=f"{second}: its signature is valid")
    xen.lpmangle("check", "--xen", xen.xen_syms, "--loaded", first, second, says="then: xen-livepatch replace crash")
    xen.load(first)
    xen.extra("-617712b.1")
    xen.replace(second)
    xen.listed("617712b CHECKED", "crash")
    suffix = build_id(second).hex()
    original = xen.folder / "original"
    xen.lpmangle("restore", "-o", original, second)
    assert original.read_bytes() == built[1].read_bytes()

    def check(console: str) -> str:
        retraced = xen.retrace(console, second)
        for name in ("x86_emulate.c#_get_fpu", "lp_helper"):
            if f"{name}_{suffix}+0x" not in console or f"{name}+0x" not in retraced:
                return f"{name} is not named, or not turned back: {retraced}"
        return f"retrace leaves {suffix}" if suffix in retraced else ""

    xen.dies("cat /sys/hypervisor/version/extra", check)


@pytest.mark.parametrize("name", scenarios_of(__name__))
def test_scenario(shared: Shared, name: str) -> None:
    shared.check(name)
