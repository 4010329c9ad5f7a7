"""The stack that a payload is put on, and what a name in the payload means there.

A payload refers to names of others in two ways: by undefined symbols (livepatch_elf.c:livepatch_elf_resolve_symbols)
and by functions to replace whose address it leaves to Xen (livepatch.c:resolve_old_address). Both look the name up
among the hypervisor's symbols, then among the new symbols of the loaded payloads, in the order in which these were
loaded. `.livepatch.depends` says which payload must be applied directly below; so the stack is that chain of build-ids,
and the lowest was loaded first.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from lpmangle import files, sources
from lpmangle.errors import PlanError, about
from lpmangle.manifest import Manifest
from lpmangle.plan import Reference
from lpmangle.sources import local
from lpmangle.xen import Payload

if TYPE_CHECKING:
    from lpmangle.check.state import Hypervisor


class Layer(NamedTuple):
    """A mangled payload of the stack; `names` are its renames, old to new, `where` its manifest."""

    payload: str
    build_id: str
    template: str
    suffix: str
    names: dict[bytes, bytes]
    where: str


class Stack:
    """The payloads below one, lowest first; `missing` is the build-id at which the chain could not be followed on.

    `hypervisor` has the hypervisor's own names, None if they are not known. `several` and `hidden` collect, for names
    that were asked for, what deserves a word: renamed by more than one payload, or known to the hypervisor as well.
    """

    def __init__(self, layers: Sequence[Layer], hypervisor: frozenset[bytes] | None, missing: str = "") -> None:
        self.layers = layers
        self.hypervisor = hypervisor
        self.missing = missing
        self.several: dict[bytes, list[Layer]] = {}
        self.hidden: dict[bytes, Layer] = {}

    def resolve(self, name: bytes) -> Reference | None:
        """What has become of `name` in the payload whose symbol Xen would have found; None if it is what it was."""
        owners = [layer for layer in self.layers if name in layer.names]
        if not owners:
            return None
        first = owners[0]
        if self.hypervisor is not None and name in self.hypervisor:
            self.hidden[name] = first
            return None
        if len({owner.names[name] for owner in owners}) > 1:
            self.several[name] = owners
        return Reference(first.names[name], first.build_id)


class Against:
    """Where the payloads are that others are put on (`--against`), and the hypervisor below all (`--xen`).

    Both are opened when first asked for, in the process that asks.
    """

    def __init__(self, words: Sequence[str], xen: str = "") -> None:
        self._words = words
        self._xen = xen

    @cached_property
    def sources(self) -> sources.Sources:
        """Raises LpmangleError for a word that is no source."""
        return sources.open_sources(self._words)

    @cached_property
    def hypervisor(self) -> "Hypervisor | None":
        """Raises FileError, ElfError."""
        if not self._xen:
            return None
        from lpmangle.check.state import Hypervisor

        with about(self._xen):
            return Hypervisor.read_from(files.read(self._xen).data)

    def open(self) -> None:
        """Open both now. Raises LpmangleError for what cannot be read."""
        assert self.sources
        assert self.hypervisor or not self._xen

    def stack_of(self, payload: Payload) -> Stack:
        """The stack that `payload` depends on. Raises PlanError if it is on another than the one that was named."""
        depends, xen = payload.depends, self.hypervisor
        if depends is None:
            raise PlanError("has no .livepatch.depends: it does not say what it is to be put on")
        self._check_hypervisor(payload.xen_depends)
        ends = {one.hex() for one in (payload.xen_depends, xen and xen.build_id) if one}
        layers: list[Layer] = []
        build_id, missing = depends.hex(), ""
        while build_id not in ends:
            ends.add(build_id)
            manifest, where = self._manifest(build_id)
            if manifest is None:
                missing = build_id
                break
            layers.append(_layer(manifest, where))
            if manifest.depends is None:
                break
            build_id = manifest.depends
        layers.reverse()
        self._check_named(depends.hex(), layers, missing)
        return Stack(layers, frozenset(xen.symbols) if xen else None, missing)

    def _manifest(self, build_id: str) -> tuple[Manifest | None, str]:
        found = list(self.sources.with_build_id(build_id))
        manifests = [one.manifest for one in found]
        if len({tuple((s.original, s.name) for s in manifest.symbols) for manifest in manifests}) > 1:
            raise PlanError(
                f"it depends on build-id {build_id}, which was mangled in several ways: "
                + ", ".join(one.where for one in found),
                hint="name the payload that is loaded, or its manifest, alone with --against",
            )
        return (manifests[0], found[0].where) if found else (None, "")

    def _check_named(self, depends: str, layers: Sequence[Layer], missing: str) -> None:
        """Every single payload that was named is in the stack, and the one that is depended on was found."""
        stack = {layer.build_id for layer in layers}
        for path in self._words:
            if sources.is_single(path) and (named := local.load(path).head.build_id) not in stack:
                below = f", and below that on {missing}" if missing not in ("", depends) else ""
                raise PlanError(
                    f"depends on build-id {depends}{below}, but --against names {path} with build-id {named}",
                    hint="name the payload that it was built on (livepatch-build --depends), and those below that one",
                )
        if not layers:
            raise PlanError(
                f"depends on build-id {depends}, of which --against has no manifest",
                hint="if it depends on the hypervisor itself it is cumulative, and needs no --against",
            )

    def _check_hypervisor(self, xen_depends: bytes | None) -> None:
        xen = self.hypervisor
        if xen and xen.build_id and xen_depends and xen.build_id != xen_depends:
            raise PlanError(
                f"is for the hypervisor {xen_depends.hex()}, but --xen names {self._xen} with {xen.build_id.hex()}",
                hint="name the xen-syms of the hypervisor that it was built for",
            )


def _layer(manifest: Manifest, where: str) -> Layer:
    names = {symbol.original.encode(): symbol.name.encode() for symbol in manifest.symbols}
    options, build_id = manifest.options, manifest.build_id
    assert build_id is not None
    return Layer(manifest.payload, build_id, options.template, manifest.suffix, names, where)
