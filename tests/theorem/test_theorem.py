"""For any stack of payloads, each relocation and each function to replace means after mangling what it meant before:
the same payload, section and offset, under the layouts of all versions of Xen; and no name collides any more."""

from __future__ import annotations

import os
import random
from collections import Counter

from lpmangle.errors import LpmangleError
from lpmangle.jobs.against import layer_of_manifest
from lpmangle.mangle.apply import apply, prove
from lpmangle.mangle.decide import make_plan
from lpmangle.mangle.stack import Layer, Stack
from lpmangle.manifest import embed
from lpmangle.manifest.read import decode
from lpmangle.manifest.write import encode
from lpmangle.xen.payload import Payload
from theorem.resolver import read, resolve
from theorem.stacks import HYPERVISOR, Way, random_stack, random_way

SEED = int(os.environ.get("LPMANGLE_SEED", "4711"))
STACKS = int(os.environ.get("LPMANGLE_STACKS", "300"))
XEN = b"\xee" * 20


def mangled(data: bytes, stem: str, way: Way, layers: list[Layer]) -> tuple[bytes, Layer]:
    payload, stack = Payload.parse(data), Stack(layers, frozenset(HYPERVISOR))
    plan = make_plan(payload, way.options, stem, stack)
    after = bytes(apply(payload, plan))
    prove(payload, after, plan.names, plan.function_names)
    text = b"".join(encode(payload, plan, after, stem, embedded=way.embed, stack=stack))
    if way.embed and plan.changes:
        after = bytes(embed.add(payload.elf.moved(after), text))
    return after, layer_of_manifest(decode(text), stem)


def mangled_stack(stack: list[bytes], ways: list[Way]) -> list[bytes]:
    """Raises LpmangleError for one that is refused."""
    layers: list[Layer] = []
    files = []
    for number, (data, way) in enumerate(zip(stack, ways, strict=True)):
        after, layer = mangled(data, f"p{number}", way, layers)
        files.append(after)
        layers.append(layer)
    return files


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
            # A name of the hypervisor's that had to be kept is one that a warning, or `check`, tells of.
            assert not [one for one in new.collisions if one[2] != "xen"], (where, empty_placed, new.collisions)
            counts["collisions before"] += len(old.collisions)
    print(dict(counts))
    assert counts["mangled"] > STACKS // 3, counts
    assert counts["meanings in others"] > STACKS, counts
    assert counts["collisions before"] > STACKS, counts
