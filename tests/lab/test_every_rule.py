"""Every rule of the loader is one that a generated upload meets in some lab, or the reason why none can is here."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.labs import LABS
from lab.prepare import prepare
from lab.seeds import SEEDS, make
from lpmangle.loader.rules import Rule

pytestmark = [pytest.mark.xen, pytest.mark.all_labs]

NO_LAB = {
    "only hypervisors of a version without a lab": {
        Rule.FUNC_READ_ONLY,
        Rule.ALTERNATIVE_CALLS,
        Rule.ALTERNATIVE_CALLS_NO_TEXT,
        Rule.ALTERNATIVE_CALLS_RANGE,
        Rule.ALTERNATIVE_CALLS_CODE,
        Rule.ALTERNATIVE_CALLS_POINTER,
    },
    "only hypervisors without a build-id": {Rule.XEN_NO_BUILD_ID},
    "depends on the processor": {Rule.ALTERNATIVES_PROCESSOR},
    "says that more would have to be known": {
        Rule.NO_HYPERVISOR_TABLE,
        Rule.NO_HYPERVISOR_BUILD_ID,
        Rule.NO_HYPERVISOR_CODE,
        Rule.UNKNOWN_VERSION,
    },
    "a warning, which Xen does not print": {
        Rule.OTHER_FILE,
        Rule.SECTION_IN_FILE,
        Rule.RELOC_COMPACT,
        Rule.DUPLICATE_ACCEPTED,
        Rule.INIT_SYMBOL,
        Rule.TWIN,
        Rule.STATE_RESET,
        Rule.FUNC_NOP_INSIDE,
        Rule.RELOC_CALL_ODD,
        Rule.RELOC_ADDEND_DROPPED,
        Rule.NOT_MANGLED,
        Rule.NEW_GLOBAL,
        Rule.SAME_NAME,
        Rule.COMMON_NAME,
        Rule.LONG_NAME,
        Rule.DEBUG_SIZE,
    },
}


def test_every_rule(tmp_path: Path) -> None:
    met: set[str] = set()
    for lab in LABS:
        for scenario in make(prepare(lab), SEEDS[0], tmp_path):
            met |= {step.rule for step in scenario.steps}
    excused = set().union(*NO_LAB.values())
    assert sorted(set(Rule) - excused - met) == [], "no generated upload meets these"
    assert sorted(excused & met) == [], "these are met, although it stands here that they cannot be"
