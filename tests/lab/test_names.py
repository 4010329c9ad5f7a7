"""What names mean for a real Xen: which symbols count as new, and which one a name finds."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
from livepatch import Source, build_id, rename

from lab.scenario import Scenario, Shared, scenario, scenarios_of
from lpmangle.loader import Hypervisor

pytestmark = pytest.mark.xen

PAYLOADS = Path(__file__).parent / "payloads"


def source(name: str, *defines: str, file: str = "") -> Source:
    return Source((PAYLOADS / f"{name}.c").read_text(), file=file or f"{name}.c", plain=("twin",), defines=defines)


@scenario
def overriding_by_chance(xen: Scenario) -> None:
    """A label that is at a replacement's address only in some layouts is new in others: mangled, it never collides."""
    one, two = (xen.build(name, source("edge", f'VERSION="-{name}"')) for name in ("one", "two"))
    xen.load(one)
    xen.upload(two, error=errno.EEXIST, console="(XEN) livepatch: two: duplicate new symbol: edge_")
    xen.unload("one")
    xen.load(xen.mangle(one))
    xen.extra("-one")
    xen.replace(xen.mangle(two))
    xen.extra("-two")


@scenario
def hidden_by_a_template(xen: Scenario) -> None:
    """A name that begins with .L is not registered in a section of merged strings: who refers to it is refused."""
    lower = xen.build("lower", source("merged", "LOWER"))
    upper = xen.build("upper", source("merged"), depends=build_id(lower))
    xen.lpmangle("--template", ".L{symbol}_{suffix}", "-o", "no", lower, code=3, says="which Xen does not register")
    xen.load(lower)
    xen.load(upper)
    xen.extra("-merged")
    xen.unload("upper")
    xen.unload("lower")
    (xen.folder / "hidden").mkdir()
    hidden = [Path(shutil.copy(payload, xen.folder / "hidden")) for payload in (lower, upper)]
    for payload in hidden:
        rename(payload, {"merged": ".Lmerged"}, xen.lab.machine.compiler)
    xen.load(hidden[0])
    xen.upload(hidden[1], error=errno.ENOENT, console="(XEN) livepatch: upper: Unknown symbol: .Lmerged\n")
    xen.unload("lower")


@scenario
def twins(xen: Scenario) -> None:
    """Of two symbols of one name Xen finds the first, before and after mangling."""
    lower = xen.build("lower", source("twins", "FIRST"), source("twins", "SECOND", file="second.c"))
    upper = xen.build("upper", source("twins"), depends=build_id(lower))
    for mangled in (False, True):
        if mangled:
            lower = xen.mangle(lower, says="(signature of a section group)")
            upper = xen.mangle(upper, "--against", lower)
        xen.load(lower)
        xen.load(upper)
        xen.extra("-first")
        xen.unload("upper")
        xen.unload("lower")


@scenario
def copied_variable(xen: Scenario) -> None:
    """A variable that the hypervisor has under another folder is a copy with its own value; `check` says so."""
    names = Hypervisor.at(str(xen.xen_syms)).symbols
    original, copy = "common/version.c", "version.c"
    if f"{original}#build_id_len".encode() not in names:
        original, copy = copy, original
    code = (PAYLOADS / "copy.c").read_text()
    payload = xen.build(
        "copy",
        Source(code, file=copy, defines=("COPY",), plain=("lp_copy",)),
        Source(code, file="look.c", foreign=(f"{original}#build_id_len",)),
    )
    said = f"{copy}#build_id_len: the hypervisor has {original}#build_id_len"
    xen.lpmangle("check", "--xen", xen.xen_syms, payload, says=said)
    xen.lpmangle(
        "check", "--xen", xen.xen_syms, xen.mangle(payload), says=f"the hypervisor has {original}#build_id_len"
    )
    xen.load(payload, console="copy 7, hypervisor 20\n")


@pytest.mark.parametrize("name", scenarios_of(__name__))
def test_scenario(shared: Shared, name: str) -> None:
    shared.check(name)
