"""The stack that a payload is put on, and what a name in the payload means there.

A payload refers to names in others in two ways: by undefined symbols (livepatch_elf.c:livepatch_elf_resolve_symbols)
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
    """A payload of the stack; `names` are its renames, old to new, `kept` the new symbols that kept their names.

    Old names are the 126 bytes that Xen keeps, and mean the first symbol of that name. `unsure` are the names of
    symbols that are new only under some versions of Xen, `two` those of several symbols that have different names now,
    and `shadowed` the new names of those that were not the first. `where` is the source of this: a manifest, or a
    payload that is not mangled.
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
        """Every name that it introduces into the hypervisor: no other payload may introduce it, too."""
        return self.kept.union(self.names.values(), self.shadowed)


class Stack:
    """The payloads below one, lowest first; `missing` is the build-id at which the chain could not be followed on.

    `hypervisor` has the hypervisor's own names, None if they are not known. `several` and `hidden` collect the names
    that were looked up and deserve a warning: new in more than one payload, or also a name of the hypervisor.
    """

    def __init__(self, layers: Sequence[Layer], hypervisor: frozenset[bytes] | None, missing: str = "") -> None:
        self.layers = layers
        self.hypervisor = hypervisor
        self.missing = missing
        self.several: dict[bytes, list[Layer]] = {}
        self.hidden: dict[bytes, Layer] = {}

    def resolve(self, name: bytes) -> Reference | None:
        """The present name of `name` in the payload whose symbol Xen would have found; None if it has not changed.

        Raises PlanError if that is not known.
        """
        if len(name) > MAX_NAME:
            return None  # Xen compares all of it with names that were cut to 126 bytes
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
        """The payload whose new symbol Xen finds by `name`, old or new; None if it is the hypervisor or none."""
        if len(name) > MAX_NAME or (self.hypervisor is not None and name in self.hypervisor):
            return None
        return next((layer for layer in self.layers if name in layer.names or name in layer.introduced), None)

    def warnings(self) -> Iterator[str]:
        """Warnings about names whose meaning depends on the order of the loader's search."""
        for name, layers in self.several.items():
            others = " and ".join(layer.payload for layer in layers[1:])
            first = layers[0].payload
            yield f"{elf.text(name)} is new in {first} and in {others}; the one of {first} is meant"
        for name, layer in self.hidden.items():
            yield (
                f"{elf.text(name)} keeps its name: the hypervisor has it, too, and Xen finds that one before the one "
                f"of {layer.payload}"
            )
        if self.missing:
            yield f"no manifest of build-id {self.missing}, on which {self.layers[0].payload} depends, was found"


def _check_sure(name: bytes, owners: Sequence[Layer]) -> None:
    """Refuse a name that is ambiguous."""
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
