"""Is an embedded manifest as lpmangle wrote it, and does nothing else differ from the payload without it?"""

from collections.abc import Iterator

from lpmangle import elf
from lpmangle.manifest import embed
from lpmangle.manifest.read import Manifest, decode
from lpmangle.verify.findings import CHANGED_SINCE, lief_view


def findings(view: elf.Object, bare: elf.Object, found: Manifest) -> Iterator[str]:
    """One line for each disagreement. `bare` is `view` without its manifest; the same if that cannot be had."""
    text = embed.extract(view)
    if text is not None and decode(text) != found:
        yield f"the manifest in section {embed.SECTION} is not the one that was given"
    if bare is view:
        yield f"section {embed.SECTION} does not stand where lpmangle put it: {CHANGED_SINCE}"
        return
    # `embed.without` has rebuilt the whole file from `bare` and the section; LIEF says the same in its own words.
    old, new = lief_view(bare.data), lief_view(view.data)
    if old is None or new is None:
        yield "LIEF cannot read it with the manifest embedded"
        return
    if old["symbols"] != new["symbols"]:
        yield "LIEF: symbols differ with the manifest embedded"
    *sections, last = new["sections"]
    for index, (was, is_now) in enumerate(zip(old["sections"], sections, strict=True)):
        if index == bare.section_names.number:
            was, is_now = was[:2], is_now[:2]
        if is_now != was:
            yield f"LIEF: section {index} is {is_now} with the manifest embedded, was {was}"
    if last[0] != embed.SECTION:
        yield f"LIEF: the last section is {last[0]}, not {embed.SECTION}"
