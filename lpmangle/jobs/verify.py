"""Verify a payload, from file to answer."""

from collections.abc import Iterator

from lpmangle import elf
from lpmangle.errors import about
from lpmangle.jobs.manifest_of import manifest_of
from lpmangle.mangle.names import stem_of
from lpmangle.manifest.format import payload_name
from lpmangle.manifest.read import Manifest
from lpmangle.store.open import is_single, open_sources
from lpmangle.store.source import Sources
from lpmangle.system import files
from lpmangle.verify.claims import about_one_below
from lpmangle.verify.payload import Verification, verify_payload
from lpmangle.verify.signing_key import SigningKey


def verify_file(
    path: str, source: str | None = None, original: str | None = None, key: SigningKey | None = None
) -> Verification:
    """Compare the payload at `path` with its manifest, and with the file `original` if that is given.

    The manifest is the one at `source`, a word as for `lpmangle verify -m`; else the one inside the payload, beside it,
    or from LPMANGLE_MANIFESTS and DEBUGINFOD_URLS. If `source` also has those of the payloads below, they must agree.
    With `key`, the signature must be valid, too. Differences are an answer (`findings`), not an error. Raises
    LpmangleError for files that cannot be read, are not payloads, or have no manifest.
    """
    file = files.read(path)
    manifest = manifest_of(file, path, source)
    before = None
    if original:
        data = files.read(original).data
        with about(original):
            before = elf.parse(data)
    with about(path):
        done = verify_payload(file.data, manifest, payload_name(stem_of(file.path)), before)
        if key:
            done = done._replace(signature=key.answer(file.data))
    if source and manifest.against and not is_single(source):
        done.findings.extend(_about_those_below(manifest, open_sources([source])))
    return done


def _about_those_below(manifest: Manifest, sources: Sources) -> Iterator[str]:
    for layer in manifest.against:
        several = [list(about_one_below(manifest, one.manifest)) for one in sources.with_build_id(layer.build_id)]
        if several and all(several):  # a payload may have been mangled in several ways, of which one is meant
            yield from several[0]
