"""`lpmangle check` and the real hypervisors say the same to hundreds of uploads: errno, message, crash.

LPMANGLE_SEED=NUMBER repeats those of another run; any other seed makes others. `make labs` has two, and crashes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.answers import Answer, ask, differences, fits, keep, read
from lab.boot import Result
from lab.labs import Lab, thorough
from lab.scenario import ROOT
from lab.seeds import SEEDS, make
from lab.uploads import Uploads

pytestmark = pytest.mark.xen

FEWEST = 300


@pytest.mark.vendors
@pytest.mark.parametrize("seed", SEEDS)
def test_every_verdict(lab: Lab, seed: int, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    sent, left_out = choose(make(lab, seed, tmp_path), crashes=thorough() and seed == SEEDS[0])
    assert len(sent) >= FEWEST
    folder = ROOT / ".cache" / "labs" / f"{lab}-{seed}"
    found = differences(sent, ask(lab, sent, folder))
    keep(folder, found, sent)
    verdicts = sum(len(scenario.steps) for scenario in sent)
    record_property("lab", (lab.name, len(sent), verdicts, len(found)))
    print(f"{lab}, seed {seed}: {len(sent)} scenarios, {verdicts} verdicts, {left_out} crashes not tried again")
    if found:
        said = f"{lab}, seed {seed}: {len(found)} differences, kept in {folder}\n" + "\n".join(map(str, found))
        pytest.fail(said, pytrace=False)


def choose(scenarios: list[Uploads], crashes: bool) -> tuple[list[Uploads], int]:
    """All that live, and of those that `check` says are a crash one for each reason: each costs a boot."""
    known: set[str] = set()
    live, die = [], []
    for scenario in scenarios:
        reason = re.sub(r"\d+", "", scenario.crashes)
        if not reason:
            live.append(scenario)
        elif crashes and reason not in known:
            known.add(reason)
            die.append(scenario)
    return live + die, len(scenarios) - len(live) - len(die)


def test_reading_answers() -> None:
    said = "(XEN) livepatch: u1: Not an ELF payload\n(XEN)   more\nx\n(XEN) livepatch: u1: finished APPLY with rc=-22\n"
    refused = Result("", 1, "Uploading 1... failed\nError 22: Invalid\n", said)
    assert read(refused) == Answer(22, ("livepatch: u1: Not an ELF payload", "  more"))
    assert read(Result("", 0, "Uploading 0... completed\n")) == Answer()
    assert read(Result("", 3, "?\n")) == Answer(-1)
    assert read(Result("")) == Answer(crash=True)
    unknown = Answer(22, ("at ????????+0x4",))
    assert fits(Answer(22, ("at 00a02000+0x4",)), unknown)
    for other in (Answer(22, ("at nowhere+0x4",)), Answer(22), Answer(0, unknown.lines), Answer(crash=True)):
        assert not fits(other, unknown)
