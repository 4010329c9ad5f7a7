"""The seeds of generated uploads, and the uploads that come of one in a lab."""

from __future__ import annotations

import os
from pathlib import Path

from livepatch import Source, build_id, cached_payload

from lab.labs import Lab, thorough
from lab.uploads import Uploads, make_scenarios
from lpmangle.loader import Hypervisor

SEEDS = [int(seed) for seed in os.environ.get("LPMANGLE_SEED", "1 2" if thorough() else "1").split()]


def make(lab: Lab, seed: int, folder: Path) -> list[Uploads]:
    identity = build_id(lab.xen_syms)
    source = Source((Path(__file__).parent / "payloads" / "upload.c").read_text(), file="upload.c")
    base = cached_payload(
        folder / "upload.livepatch",
        [source],
        depends=identity,
        xen_depends=identity,
        machine=lab.machine.compiler,
    )
    return list(make_scenarios(seed, base.read_bytes(), Hypervisor.read_from(lab.xen_syms.read_bytes()), lab.vendor))
