"""XenServer and XCP-ng: with "livepatch: Ignore duplicate new symbols" build_symbol_table only prints its message."""

from __future__ import annotations

import pytest
from hypervisor import Small, payload, state
from lab.editor import Editor

from lpmangle.errors import NamingError
from lpmangle.loader import WARNING, State, Upload, check_sequence, take
from lpmangle.loader.fleet import Matrix
from lpmangle.loader.profile import XENSERVER, Profile

CLASH = {"lp_data": "gnttab_map_frame_begin"}


def xenserver() -> State:
    return State(Small(), (4, 17, 5), vendor=XENSERVER)


def test_duplicates_are_printed_and_taken() -> None:
    verdicts = check_sequence([payload("one", names=CLASH), payload("two", names=CLASH)], xenserver())
    assert [verdict.action for verdict in verdicts] == ["apply", "replace"]
    assert verdicts[0].printed == []
    assert verdicts[1].printed == ["livepatch: two: duplicate new symbol: gnttab_map_frame_begin"]
    (finding,) = [finding for finding in verdicts[1].findings if finding.rule == "duplicate-accepted"]
    assert finding.severity == WARNING
    assert finding.detail == "one has it; as long as it does, look-ups of the name find that one"
    assert "--scope new" in finding.remedy


def test_a_name_of_the_hypervisor() -> None:
    verdict = check_sequence([payload("two", names={"lp_data": "printk"})], xenserver())[0]
    assert verdict.status == "accepted"
    (detail,) = [finding.detail for finding in verdict.findings if finding.rule == "duplicate-accepted"]
    assert detail.startswith("the hypervisor has it; ")


def test_the_first_that_has_a_name_is_found() -> None:
    there = xenserver()
    first, second = check_sequence([payload("one", names=CLASH), payload("two", names=CLASH)], there)
    assert first.loaded
    assert second.loaded
    name = b"gnttab_map_frame_begin"
    assert there.find(name) == first.loaded.symbols[name]
    there.loaded.remove(first.loaded)
    assert there.find(name) == second.loaded.symbols[name]


def test_all_else_is_refused_as_ever() -> None:
    one = payload("one", names=CLASH)
    bad = Upload("two", bytes(Editor(payload("two", names=CLASH).data).edit(".text", flags=7).data))
    verdict = check_sequence([one, bad], xenserver())[1]
    assert verdict.first
    assert verdict.first.rule == "section-flags"
    assert verdict.printed == []  # Xen does not get as far


def test_a_fleet_of_one_vendor() -> None:
    upload = payload("two", names=CLASH)
    for there, good in ((xenserver(), True), (state(), False)):
        matrix = Matrix([upload], there)
        (cell,) = matrix.check([take(payload("one", names=CLASH), matrix.state)])
        assert cell.good is good


@pytest.mark.parametrize("version", [(4, 14, 0), (4, 22, 0)])
def test_no_version_takes_them(version: tuple[int, int, int]) -> None:
    assert not Profile(version).duplicates_accepted
    assert Profile(version, XENSERVER).duplicates_accepted
    with pytest.raises(NamingError, match="'qubes' is not a known vendor"):
        Profile(version, "qubes")
