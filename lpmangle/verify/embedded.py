"""Is an embedded manifest as lpmangle wrote it, and is everything else the same as without it?"""

from collections.abc import Iterator

from lpmangle import elf
from lpmangle.errors import ManifestError
from lpmangle.manifest import embed
from lpmangle.manifest.read import Manifest, decode
from lpmangle.verify import second_opinion
from lpmangle.verify.findings import CHANGED_SINCE


def findings(view: elf.Object, bare: elf.Object, found: Manifest) -> Iterator[str]:
    """One line for each difference. `bare` is `view` without its manifest, or `view` itself if it cannot be removed."""
    try:
        text = embed.extract(view)
        if text is not None and decode(text) != found:
            yield f"the manifest in section {embed.SECTION} is not the one that was given"
    except ManifestError as error:
        yield error.message
    if bare is view:
        yield f"section {embed.SECTION} is not where lpmangle put it: {CHANGED_SINCE}"
        return
    # `embed.without` has rebuilt the whole file from `bare` and the section; LIEF checks it independently.
    yield from second_opinion.on_embedding(bare, view)
