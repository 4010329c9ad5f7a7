"""For any stack of payloads, each relocation and each function to replace means after mangling what it meant before:
the same payload, section and offset, under the layouts of all versions of Xen; and no name collides any more."""

from __future__ import annotations

import os
import random
from collections import Counter

from lpmangle.errors import LpmangleError
from theorem.mangling import mangled_stack
from theorem.resolver import read, resolve
from theorem.stacks import HYPERVISOR, random_stack, random_way

SEED = int(os.environ.get("LPMANGLE_SEED", "4711"))
STACKS = int(os.environ.get("LPMANGLE_STACKS", "300"))
XEN = b"\xee" * 20


def test_theorem() -> None:
    print(f"LPMANGLE_SEED={SEED} LPMANGLE_STACKS={STACKS}")
    counts: Counter[str] = Counter()
    for number in range(STACKS):
        rng = random.Random(f"{SEED}/{number}")
        stack = random_stack(rng, XEN)
        ways = [random_way(rng) for _ in stack]
        try:
            after = mangled_stack(stack, ways)
        except LpmangleError as error:
            counts[f"refused: {error.message.partition(' would be ')[2] or error.message}"[:60]] += 1
            continue
        counts["mangled"] += 1
        where = f"seed {SEED}, stack {number}, {ways}"
        for empty_placed in (False, True):
            old = resolve([read(data) for data in stack], HYPERVISOR, empty_placed)
            new = resolve([read(data) for data in after], HYPERVISOR, empty_placed)
            assert old.meanings.keys() == new.meanings.keys(), where
            for key, meaning in old.meanings.items():
                # What Xen did not find before, it would not have loaded.
                if meaning is not None:
                    assert new.meanings[key] == meaning, (where, empty_placed, key)
                    counts["meanings in others" if meaning[0] != key[0] else "own meanings"] += 1
            # If a name of the hypervisor had to be kept, a warning or `check` says so.
            assert not [one for one in new.collisions if one[2] != "xen"], (where, empty_placed, new.collisions)
            counts["collisions before"] += len(old.collisions)
    print(dict(counts))
    assert counts["mangled"] > STACKS // 3, counts
    assert counts["meanings in others"] > STACKS, counts
    assert counts["collisions before"] > STACKS, counts
