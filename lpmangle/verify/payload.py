"""A payload's file verified as a whole: what was appended to it, the manifest inside, the payload itself."""

from typing import NamedTuple

from lpmangle import elf
from lpmangle.elf import appended
from lpmangle.manifest import embed
from lpmangle.manifest.read import Manifest
from lpmangle.verify import embedded
from lpmangle.verify.findings import findings


class Verification(NamedTuple):
    """What was found: one line for each disagreement, none if all is well.

    `appended_bytes` were appended since the payload was mangled; `appended` says so in words. They are left
    out of account: a signature is no disagreement.
    """

    manifest: Manifest
    findings: list[str]
    appended_bytes: int = 0
    appended: str = ""

    @property
    def verified(self) -> bool:
        return not self.findings


def verify_payload(data: bytes, found: Manifest, name: str, original: elf.Object | None = None) -> Verification:
    """Hold a payload's file against its manifest, and against the original if that is at hand.

    `name` is what the payload is uploaded as by its file name. Raises ElfError for a file that is no payload.
    """
    view = elf.parse(data)
    size = appended.size(view)
    if size:
        view = elf.parse(data[:-size])
    bare = embed.without(view)
    lines = list(findings(bare, found, name, original))
    if view.section_named(embed.SECTION):
        lines = [*embedded.findings(view, bare, found), *lines]
    return Verification(
        found, lines, size, appended.describe(data, size, "was appended", "were appended") if size else ""
    )
