"""A hypervisor as a vendor changes it: names that are in use are printed, and found in the order of the uploads."""

from __future__ import annotations

from pathlib import Path

import pytest
from livepatch import Source, build_id

from lab.scenario import Scenario, Shared, scenario, scenarios_of
from lpmangle.loader.profile import XENSERVER

pytestmark = [
    pytest.mark.xen,
    pytest.mark.vendors,
    pytest.mark.only(lambda lab: lab.vendor == XENSERVER, reason="others refuse what has a name that is taken"),
]

CODE = (Path(__file__).parent / "payloads" / "word.c").read_text()


@scenario
def duplicates_taken(xen: Scenario) -> None:
    """Two payloads have one name: who asks for it gets the first, and the second once that is gone."""

    def build(name: str, *defines: str, depends: bytes | None = None) -> Path:
        source = Source(CODE, file=f"{name}.c", defines=defines)
        return xen.build(name, source, depends=depends)

    one, two = build("one", 'WORD="-first"'), build("two", 'WORD="-second"')
    user = build("user", depends=build_id(two))
    says = "livepatch: two: duplicate new symbol: lp_word"
    xen.upload(one)
    said = xen.lpmangle("check", "--vendor", XENSERVER, "--xen", xen.xen_syms, "--loaded", one, two)
    assert says in said
    assert "as long as it does, look-ups of the name find that one" in said
    xen.upload(two, console=f"(XEN) {says}\n")
    xen.tool("apply two")
    xen.load(user)
    xen.extra("-first")
    xen.unload("user")
    xen.tool("unload one")
    xen.load(user)
    xen.extra("-second")


@pytest.mark.parametrize("name", scenarios_of(__name__))
def test_scenario(shared: Shared, name: str) -> None:
    shared.check(name)
