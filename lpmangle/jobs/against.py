"""Finding the payloads that a stacked one is put on: by manifest, payload, folder, catalog or server (--against)."""

from collections.abc import Sequence
from functools import cached_property

from lpmangle import elf
from lpmangle.errors import ManifestError, PlanError, about
from lpmangle.mangle import mark
from lpmangle.mangle.decide import holds_build_id
from lpmangle.mangle.names import stem_of
from lpmangle.mangle.stack import Layer, Stack
from lpmangle.manifest.read import Manifest
from lpmangle.store import local
from lpmangle.store.open import is_single, open_sources
from lpmangle.store.source import Sources
from lpmangle.system import files
from lpmangle.system.files import sha256
from lpmangle.xen.abi import MAX_NAME
from lpmangle.xen.hypervisor import Hypervisor
from lpmangle.xen.payload import Payload
from lpmangle.xen.symbols import Kind


class Against:
    """Where to find the payloads that others are put on (`--against`), and the hypervisor below them (`--xen`).

    Both are opened on first use, in the process that uses them.
    """

    def __init__(self, words: Sequence[str], xen: str = "") -> None:
        self._words = words
        self.xen = xen

    @cached_property
    def named(self) -> dict[str, Layer]:
        """The payloads that were named one by one, by the word that names each. Raises LpmangleError."""
        return {word: layer_of(word) for word in self._words if is_single(word)}

    @cached_property
    def stores(self) -> Sources | None:
        """The folders, catalogs and servers. Raises LpmangleError for a word that is not a source."""
        words = [word for word in self._words if word not in self.named]
        return open_sources(words) if words else None

    @cached_property
    def hypervisor(self) -> Hypervisor | None:
        """Raises FileError, ElfError."""
        if not self.xen:
            return None
        return Hypervisor.at(self.xen)

    def open(self) -> None:
        """Read everything now. Raises LpmangleError for what cannot be read.

        Folders, catalogs and servers are opened again when they are searched, which may be in another process.
        """
        _ = self.named, self.stores, self.hypervisor
        del self.stores

    def stack_of(self, payload: Payload) -> Stack:
        """The stack that `payload` depends on; empty if that is the hypervisor.

        Raises PlanError if the payloads that were named are not of that stack.
        """
        depends, xen = payload.depends, self.hypervisor
        if depends is None:
            raise PlanError("has no .livepatch.depends, which says what it is put on")
        self._check_hypervisor(payload.xen_depends)
        below = {one.hex() for one in (payload.xen_depends, xen and xen.build_id) if one}
        above = {payload.build_id.hex()} if payload.build_id else set()
        layers: list[Layer] = []
        build_id, missing = depends.hex(), ""
        while build_id not in below:
            if build_id in above:
                raise PlanError(
                    f"depends on itself: .livepatch.depends leads to build-id {build_id} twice",
                    hint="Xen cannot apply such a payload; build it again, with the right --depends",
                )
            above.add(build_id)
            layer = self._layer(build_id)
            if layer is None:
                missing = build_id
                break
            layers.append(layer)
            if layer.depends is None:
                break
            build_id = layer.depends
        layers.reverse()
        self._check_named(depends.hex(), layers, missing)
        return Stack(layers, frozenset(xen.symbols) if xen else None, missing)

    def _layer(self, build_id: str) -> Layer | None:
        layers = [layer for layer in self.named.values() if layer.build_id == build_id]
        if not layers and self.stores:
            found = [layer_of_manifest(one.manifest, one.where) for one in self.stores.with_build_id(build_id)]
            # A catalog that somebody else wrote may return a manifest with another build-id.
            layers = [layer for layer in found if layer.build_id == build_id]
        if any(layer.names != layers[0].names for layer in layers):
            raise PlanError(
                f"it depends on build-id {build_id}, which was mangled in several ways: "
                + ", ".join(layer.where for layer in layers),
                hint="name the payload that is loaded, or its manifest, with --against",
            )
        return layers[0] if layers else None

    def _check_named(self, depends: str, layers: Sequence[Layer], missing: str) -> None:
        """Check that every payload that was named is in the stack, and that the one on top of it was found."""
        for word, named in self.named.items():
            if named not in layers:
                below = f", and below that on {missing}" if missing not in ("", depends) else ""
                raise PlanError(
                    f"depends on build-id {depends}{below}, but --against names {word} with build-id {named.build_id}",
                    hint="name the payload that it was built on (livepatch-build --depends), and those below that one",
                )
        if missing == depends:
            raise PlanError(
                f"depends on build-id {depends}, which --against does not have",
                hint="name that payload, or add its manifest to the catalog or folder; "
                "if it is the hypervisor's build-id, name the hypervisor with --xen",
            )

    def _check_hypervisor(self, xen_depends: bytes | None) -> None:
        xen = self.hypervisor
        if xen and xen.build_id and xen_depends and xen.build_id != xen_depends:
            raise PlanError(
                f"is for the hypervisor {xen_depends.hex()}, but --xen names {self.xen} with {xen.build_id.hex()}",
                hint="name the xen-syms of the hypervisor that it was built for",
            )


def layer_of(path: str) -> Layer:
    """The payload, or the one of the manifest, at `path`."""
    file = files.read(path)
    with about(path):
        if file.data[: len(elf.ELFMAG)] == elf.ELFMAG:
            payload = Payload.parse(file.data)
            if mark.find(payload.elf) is None and not local.inside(file.data, path):
                found = local.beside(path, file.data)
                # When a payload is restored, its manifest stays.
                if not found or found.manifest.input.sha256 == sha256(file.data):
                    return layer_of_payload(payload, path)
        found = local.load(path)
        return layer_of_manifest(found.manifest, found.where)


def layer_of_manifest(manifest: Manifest, where: str) -> Layer:
    kept, unsure = (frozenset(name.encode()[:MAX_NAME] for name in some) for some in (manifest.kept, manifest.unsure))
    names: dict[bytes, bytes] = {}
    two: set[bytes] = set()
    shadowed: set[bytes] = set()
    for symbol in manifest.symbols:
        old, new = symbol.original.encode()[:MAX_NAME], symbol.name.encode()
        if names.setdefault(old, new) != new:
            shadowed.add(new)
            if old in unsure:
                two.add(old)
    two |= names.keys() & kept  # as lpmangle 0.1 wrote them: it does not say which one was the first
    if manifest.build_id is None:
        raise PlanError("has no build-id: nothing can be put on it", path=where)
    for name in names.values():
        if not 0 < len(name) <= MAX_NAME or b"\0" in name:
            raise ManifestError(f"was not written by lpmangle: {name[:MAX_NAME]!r} cannot be a name", path=where)
    what = manifest.payload, manifest.build_id, manifest.depends, manifest.options.template, manifest.suffix
    return Layer(*what, names, kept, where, unsure, frozenset(two), frozenset(shadowed))


def layer_of_payload(payload: Payload, path: str) -> Layer:
    """The layer of a payload that is not mangled: it has the names of its sources."""
    view, kinds = payload.elf, payload.kinds
    if payload.build_id is None:
        raise PlanError("has no build-id: nothing can be put on it")
    if holds_build_id(view, payload.build_id):
        raise PlanError(
            "is mangled, and was changed since by objcopy or strip; its manifest is not beside it",
            hint="name its manifest with --against",
        )
    new = [index for index, kind in enumerate(kinds) if kind == Kind.NEW]
    kept = frozenset(view.symbol_name(index)[:MAX_NAME] for index in new)
    depends = payload.depends.hex() if payload.depends else None
    name = stem_of(files.resolve(path))
    return Layer(name, payload.build_id.hex(), depends, "", "", {}, kept, path, payload.unsure_names)
