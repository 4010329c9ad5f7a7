"""Checks what a manifest says about how its payload was mangled, against the payload's mark and against itself."""

from collections import Counter
from collections.abc import Iterable, Iterator

from lpmangle import elf
from lpmangle.errors import LpmangleError
from lpmangle.mangle import mark
from lpmangle.mangle.mark import Mark
from lpmangle.mangle.names import Namer, resolve_suffix
from lpmangle.manifest.format import VERSION
from lpmangle.manifest.read import Manifest

_NO_GLOBS = "no --only and no --keep"


def about_itself(found: Manifest) -> Iterator[str]:
    """Repeated entries; fields that a newer lpmangle may have added."""
    for what, keys in (
        ("symbol", [entry.index for entry in found.named]),
        (".livepatch.funcs entry", [function.entry for function in found.functions]),
        ("section", [place.section for place in found.string_sections]),
        ("the kept name", found.kept),
        ("the unsure name", found.unsure),
        ("the payload below with build-id", [layer.build_id for layer in found.against]),
    ):
        for key in _twice(keys):
            yield f"{what} {key} is twice in the manifest"
    if found.version != VERSION:
        yield f"the manifest has version {found.version}, of which this lpmangle cannot check all; it knows {VERSION}"


def _twice(keys: Iterable[object]) -> list[object]:
    return [key for key, count in Counter(keys).items() if count > 1]


def about_options(view: elf.Object, found: Manifest) -> Iterator[str]:
    """Suffix and options."""
    options = found.options
    try:
        suffix = resolve_suffix(options.suffix, _bytes(found.build_id), found.payload)
        if suffix != found.suffix:
            yield f"--suffix {options.suffix} gives {suffix}, the manifest says {found.suffix}"
    except LpmangleError as error:
        yield error.message
    there = mark.find(view)
    if there is None:  # there was nothing to rename, or objcopy rewrote the string table
        return
    if not there.suffix:
        yield f"its mark says {there.words!r}, which this lpmangle does not read"
        return
    globs = mark.globs_text(options.only, options.keep)
    for what, was, said in (
        ("suffix ", there.suffix, found.suffix),
        ("--suffix ", there.typed, options.suffix if there.version > 1 else there.typed),
        ("--template ", there.template, options.template),
        ("--scope ", there.scope, options.scope),
        ("", there.globs or _NO_GLOBS, globs or _NO_GLOBS),
    ):
        if was != said:
            yield f"it was mangled with {what}{was}, the manifest says {said}"


def about_below(view: elf.Object, found: Manifest) -> Iterator[str]:
    """The payloads below, and what was borrowed from them."""
    there = mark.find(view)
    if there and there.suffix:
        yield from _about_below(there, found)


def _about_below(there: Mark, found: Manifest) -> Iterator[str]:
    borrowed = Counter(one.build_id for one in found.borrowed)
    said = {layer.build_id: layer for layer in found.against}
    was = {one.build_id: one for one in there.below}
    for build_id in dict.fromkeys((*was, *borrowed)):
        if build_id not in said:
            yield f"the payload below with build-id {build_id} is not in the manifest"
    if there.version > 1:  # in version 1, a mark had only those that names were borrowed from
        order = [build_id for build_id in said if build_id in was]
        if order != [build_id for build_id in was if build_id in said]:
            yield "the payloads below are in another order in the manifest"
        for build_id in said:
            if build_id not in was:
                yield f"it was not mangled against a payload with build-id {build_id}, as the manifest says"
    for build_id, one in was.items():
        if (layer := said.get(build_id)) and one.check not in ("", mark.check_of(layer.template, layer.suffix)):
            yield f"the payload below with build-id {build_id} had another template or suffix than the manifest says"
        if one.borrowed != borrowed[build_id]:
            said_count = borrowed[build_id]
            yield f"it borrows {one.borrowed} of its names from build-id {build_id}, the manifest says {said_count}"
    try:
        namers = {build_id: Namer(layer.template, layer.suffix) for build_id, layer in said.items()}
    except LpmangleError as error:
        yield f"the payloads below: {error.message}"
        return
    for reference in found.borrowed:
        if namer := namers.get(reference.build_id):
            made = elf.text(namer.rename(reference.original.encode()))
            if made != reference.name:
                yield f"{reference.original} is called {made} in build-id {reference.build_id}, not {reference.name}"


def about_one_below(found: Manifest, below: Manifest) -> Iterator[str]:
    """A payload below whose manifest is known: what was borrowed from it, and how it was mangled."""
    for layer in found.against:
        if layer.build_id != below.build_id:
            continue
        for what, is_now, said in (
            ("payload", below.payload, layer.payload),
            ("template", below.options.template, layer.template),
            ("suffix", below.suffix, layer.suffix),
        ):
            if is_now != said:
                yield f"below it: {what} is {is_now} in the manifest of {layer.build_id}, in this one {said}"
    names = {symbol.original: symbol.name for symbol in below.symbols}
    for one in found.borrowed:
        if one.build_id == below.build_id and (name := names.get(one.original)) != one.name:
            yield f"below it: {one.original} is called {name} in the manifest of {one.build_id}, in this one {one.name}"


def _bytes(digits: str | None) -> bytes | None:
    return None if digits is None else bytes.fromhex(digits)
