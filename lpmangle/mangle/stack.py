"""The stack that a payload is put on, and what a name in the payload means there.

A payload refers to names of others in two ways: by undefined symbols (livepatch_elf.c:livepatch_elf_resolve_symbols)
and by functions to replace whose address it leaves to Xen (livepatch.c:resolve_old_address). Both look the name up
among the hypervisor's symbols, then among the new symbols of the loaded payloads, in the order in which these were
loaded. `.livepatch.depends` says which payload must be applied directly below; so the stack is that chain of build-ids,
and the lowest was loaded first.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lpmangle import elf
from lpmangle.errors import PlanError
from lpmangle.mangle.plan import Reference
from lpmangle.xen.abi import MAX_NAME


class Layer(NamedTuple):
    """A payload of the stack; `names` are its renames, old to new, `kept` the new symbols that have their names still.

    Old names are the 126 bytes by which Xen knew them, and stand for the first symbol that had one. `unsure` are those
    of symbols that are new under some versions of Xen only, `two` those that stood for symbols which are called
    differently now, and `shadowed` what those are called that were not the first. `where` is what says so: a manifest,
    or a payload that is not mangled.
    """

    payload: str
    build_id: str
    depends: str | None
    template: str
    suffix: str
    names: dict[bytes, bytes]
    kept: frozenset[bytes]
    where: str
    unsure: frozenset[bytes] = frozenset()
    two: frozenset[bytes] = frozenset()
    shadowed: frozenset[bytes] = frozenset()

    @property
    def introduced(self) -> frozenset[bytes]:
        """Every name that it has in the hypervisor: no other payload may introduce one of them."""
        return self.kept.union(self.names.values(), self.shadowed)


class Stack:
    """The payloads below one, lowest first; `missing` is the build-id at which the chain could not be followed on.

    `hypervisor` has the hypervisor's own names, None if they are not known. `several` and `hidden` collect, for names
    that were asked for, what deserves a word: new in more than one payload, or known to the hypervisor as well.
    """

    def __init__(self, layers: Sequence[Layer], hypervisor: frozenset[bytes] | None, missing: str = "") -> None:
        self.layers = layers
        self.hypervisor = hypervisor
        self.missing = missing
        self.several: dict[bytes, list[Layer]] = {}
        self.hidden: dict[bytes, Layer] = {}

    def resolve(self, name: bytes) -> Reference | None:
        """What has become of `name` in the payload whose symbol Xen would have found; None if it is what it was.

        Raises PlanError where that cannot be told.
        """
        if len(name) > MAX_NAME:
            return None  # compared as a whole with names of which Xen has kept 126 bytes
        owners = [layer for layer in self.layers if name in layer.names or name in layer.kept]
        if not any(name in owner.names for owner in owners):
            return None
        first = owners[0]
        if self.hypervisor is not None and name in self.hypervisor:
            self.hidden[name] = first
            return None
        _check_sure(name, owners)
        if len({owner.names.get(name, name) for owner in owners}) > 1:
            self.several[name] = owners
        return Reference(first.names[name], first.build_id) if name in first.names else None

    def owner(self, name: bytes) -> Layer | None:
        """The payload whose new symbol Xen finds by `name`, old or new; None if the hypervisor has it, or nobody."""
        if len(name) > MAX_NAME or (self.hypervisor is not None and name in self.hypervisor):
            return None
        return next((layer for layer in self.layers if name in layer.names or name in layer.introduced), None)

    def warnings(self) -> Iterator[str]:
        """What to know about names whose meaning depends on the order of the loader's search."""
        for name, layers in self.several.items():
            others = " and ".join(layer.payload for layer in layers[1:])
            first = layers[0].payload
            yield f"{elf.text(name)} is new in {first} and in {others}; the one of {first} is meant"
        for name, layer in self.hidden.items():
            yield f"{elf.text(name)} stays: the hypervisor has it, and Xen finds that before the one of {layer.payload}"
        if self.missing:
            yield f"no manifest of build-id {self.missing}, on which {self.layers[0].payload} depends, was found"


def _check_sure(name: bytes, owners: Sequence[Layer]) -> None:
    """Refuse a name that means one symbol or another."""
    first = owners[0]
    if name in first.two:
        raise PlanError(
            f"{elf.text(name)} stands for two symbols of {first.payload}, which are called differently now",
            hint="restore that payload and mangle it again, or give one of the two another name in the source",
        )
    if len(owners) > 1 and any(name in owner.unsure for owner in owners[:-1]):
        others = " and ".join(owner.payload for owner in owners)
        raise PlanError(
            f"which {elf.text(name)} is meant depends on the version of Xen: {others} have one",
            hint="give the symbol another name in one of them",
        )
