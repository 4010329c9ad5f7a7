"""Rename the symbols of Xen livepatch payloads so that payloads can be loaded side by side.

    view = lpmangle.parse(data)                                   # bytes -> view; ElfError
    payload = lpmangle.Payload(view)                              # what Xen's loader sees
    plan = lpmangle.make_plan(payload, lpmangle.Options(), stem)  # the decision per symbol
    output = lpmangle.apply(view, plan)                           # bytes -> bytes
    lpmangle.prove(view, output, plan.names)                      # only names differ; ProofError
    text = b"".join(lpmangle.encode_manifest(payload, plan, output, stem))

    from lpmangle.manifest.read import decode  # text -> Manifest; ManifestError
    lpmangle.undo(lpmangle.parse(output), decode(text))           # the input again

All errors derive from `LpmangleError`.
"""

from lpmangle.elf import Object, parse
from lpmangle.errors import LpmangleError
from lpmangle.mangle.apply import apply, prove
from lpmangle.mangle.decide import make_plan
from lpmangle.mangle.plan import Options, Plan
from lpmangle.manifest.undo import undo
from lpmangle.manifest.write import encode as encode_manifest
from lpmangle.xen.payload import Payload
from lpmangle.xen.symbols import Kind

__version__ = "0.1.0"
__all__ = [
    "Kind",
    "LpmangleError",
    "Object",
    "Options",
    "Payload",
    "Plan",
    "apply",
    "encode_manifest",
    "make_plan",
    "parse",
    "prove",
    "undo",
]
