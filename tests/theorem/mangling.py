"""A stack of payloads, mangled from the bottom up, each against those below it."""

from __future__ import annotations

from collections.abc import Sequence

from lpmangle.jobs.against import layer_of_manifest
from lpmangle.mangle.apply import apply, prove
from lpmangle.mangle.decide import make_plan
from lpmangle.mangle.stack import Layer, Stack
from lpmangle.manifest import embed
from lpmangle.manifest.read import decode
from lpmangle.manifest.write import encode
from lpmangle.xen.payload import Payload
from theorem.stacks import HYPERVISOR, Way


def _mangled(data: bytes, stem: str, way: Way, layers: list[Layer]) -> tuple[bytes, Layer]:
    payload, stack = Payload.parse(data), Stack(layers, frozenset(HYPERVISOR))
    plan = make_plan(payload, way.options, stem, stack)
    after = bytes(apply(payload, plan))
    prove(payload, after, plan.names, plan.function_names)
    text = b"".join(encode(payload, plan, after, stem, embedded=way.embed, stack=stack))
    if way.embed and plan.changes:
        after = bytes(embed.add(payload.elf.moved(after), text))
    return after, layer_of_manifest(decode(text), stem)


def mangled_stack(stack: Sequence[bytes], ways: Sequence[Way]) -> list[bytes]:
    """Raises LpmangleError for one that is refused."""
    layers: list[Layer] = []
    files = []
    for number, (data, way) in enumerate(zip(stack, ways, strict=True)):
        after, layer = _mangled(data, f"p{number}", way, layers)
        files.append(after)
        layers.append(layer)
    return files
