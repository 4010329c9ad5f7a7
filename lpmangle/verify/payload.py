"""Verifies a payload's file as a whole: appended bytes, signature, rewriting by another tool, manifest, payload."""

from collections.abc import Iterator
from typing import NamedTuple

from lpmangle import elf
from lpmangle.elf import appended
from lpmangle.elf.identity import SectionId, section_ids
from lpmangle.errors import LpmangleError, ManifestError
from lpmangle.mangle.apply import apply
from lpmangle.manifest import embed
from lpmangle.manifest.read import Manifest, decode
from lpmangle.manifest.rebuild import Rebuilt, rebuild
from lpmangle.system.files import sha256
from lpmangle.verify import embedded, relaid, second_opinion
from lpmangle.verify.again import plan_of
from lpmangle.verify.findings import findings, is_rewritten
from lpmangle.verify.rewritten import is_unmangled, of_another_payload
from lpmangle.verify.signing_key import SignatureAnswer
from lpmangle.xen.abi import BUILD_ID_SECTION, SIGNATURE_SECTION
from lpmangle.xen.payload import Payload
from lpmangle.xen.signature import Note, note_of


class Verification(NamedTuple):
    """What was found: one line for each difference, none if all is well.

    `appended_bytes` were appended since the payload was mangled; `appended` says so in words. They are ignored: a
    signature is not a difference. `since` says what else was done and is not a difference, such as "signed since
    (.note.Xen.signature, RSA, SHA-256)". `signature` is the answer of a key, if there is one.
    """

    manifest: Manifest
    findings: list[str]
    appended_bytes: int = 0
    appended: str = ""
    since: str = ""
    signature: SignatureAnswer | None = None

    @property
    def verified(self) -> bool:
        return not self.findings and (self.signature is None or self.signature.valid)


def verify_payload(data: bytes, found: Manifest, name: str, original: elf.Object | None = None) -> Verification:
    """Compare a payload's file with its manifest, and with the original if that is known.

    `name` is the name by which the payload is uploaded, from its file name. Raises ElfError for a file that is not a
    payload.
    """
    view = elf.parse(data)
    size = appended.size(view)
    words = appended.describe(data, size, "was appended", "were appended") if size else ""
    if size:
        view = elf.parse(data[:-size])
    bare = embed.without(view)
    if other := of_another_payload(bare, found):
        lines, since = [other], ""
    elif _was_changed(bare, found):
        lines, since = _seen_through(view, found, name, original)
    else:
        lines = list(findings(bare, found, name, original))
        if view.section_named(embed.SECTION):
            lines = [*embedded.findings(view, bare, found), *lines]
        note = note_of(view)
        before = note is not None and not note.blank and bool(found.named or found.functions)
        since = f"signed before; the signature is no longer valid ({note})" if before else ""
    if name != found.payload and not lines:
        since = "; ".join(filter(None, (since, f"renamed since (its manifest calls it {found.payload})")))
    return Verification(found, lines, size, words, since)


def _was_changed(view: elf.Object, found: Manifest) -> bool:
    """Whether another tool has rewritten the file, or a signer has filled in a note."""
    if sha256(view.data) in (found.input.sha256, found.output.sha256) or is_unmangled(view, found):
        return False
    note = note_of(view)
    return is_rewritten(view, found) or bool(note and not note.blank)


def _seen_through(view: elf.Object, found: Manifest, name: str, original: elf.Object | None) -> tuple[list[str], str]:
    """What differs from what lpmangle wrote; and, if nothing does, what was done since.

    What lpmangle wrote is made again from the original, and digests prove both, so nothing is assumed.
    """
    bare = embed.without(view)
    try:
        rebuilt = _original(view, found, original)
        mangled = elf.parse(bytes(apply(Payload(rebuilt.view), plan_of(rebuilt.view, found))))
    except (LpmangleError, UnicodeDecodeError) as error:  # the latter: of a manifest that is not this payload's
        reason = error.message if isinstance(error, LpmangleError) else "a name is not text"
        return [
            *findings(bare, found, name, original),
            f"nothing more can be checked without the original: {reason}",
        ], ""
    note, was = note_of(view), note_of(mangled)
    is_now, wrote = _sizes(view), _sizes(mangled)
    since = [
        *_about_embedded(view, found),
        *_about_note(view, note, was),
        # If the size is the same, the comparison cannot see it, because their content comes from this file.
        *(f"section changed: {one.name}" for one in rebuilt.changed if is_now.get(one) == wrote.get(one)),
        *relaid.differences(mangled, view),
    ]
    if not rebuilt.proven and not since:
        since = [f"the recovered original has sha256 {sha256(rebuilt.view.data)}, not {found.input.sha256}"]
    build_id = [section.name for section in view.sections].count(BUILD_ID_SECTION)
    if since or _build_id(view) != _build_id(mangled) or build_id > 1:
        return list(findings(bare, found, name, original, since=since)), _signed_since(note, was, view, mangled)
    lines = [*findings(mangled, found, name, original), *second_opinion.on_laying_out(mangled.data, view.data)]
    return lines, _signed_since(note, was, view, mangled) or "rewritten since (by objcopy or the like)"


def _original(view: elf.Object, found: Manifest, original: elf.Object | None) -> Rebuilt:
    if original and sha256(original.data) == found.input.sha256:
        return Rebuilt(original, True, [])
    return rebuild(view, found)


def _sizes(view: elf.Object) -> dict[SectionId, int]:
    return {one: view.sections[number].size for number, one in enumerate(section_ids(view))}


def _build_id(view: elf.Object) -> bytes:
    section = view.section_named(BUILD_ID_SECTION)
    return bytes(view.section_data(section)) if section else b""


def _about_embedded(view: elf.Object, found: Manifest) -> Iterator[str]:
    """The manifest inside, if there should be one."""
    section = view.section_named(embed.SECTION)
    if (count := [one.name for one in view.sections].count(embed.SECTION)) > 1:
        yield f"section added: {embed.SECTION}: there are {count} of that name"
    if section is None or found.section_headers is None:
        if section or found.section_headers is not None:
            yield f"section {'added' if section else 'gone'}: {embed.SECTION}"
        return
    fields = section.type, section.flags & ~elf.SHF_COMPRESSED, section.link, section.info, section.entsize
    if fields != (elf.SHT_PROGBITS, 0, 0, 0, 0):
        yield f"section changed: {embed.SECTION}: its header is not as lpmangle wrote it"
    try:
        text = embed.extract(view)
        if text is None or decode(text) != found:
            yield f"the manifest in section {embed.SECTION} is not the one that was given"
    except ManifestError as error:
        yield error.message


def _about_note(view: elf.Object, note: Note | None, was: Note | None) -> Iterator[str]:
    if note is None and was:
        yield f"section gone: {SIGNATURE_SECTION}"
    if note and note.problem:
        yield str(note)
    for section in view.sections:
        if section.name != SIGNATURE_SECTION:
            continue
        if section.flags & (elf.SHF_WRITE | elf.SHF_EXECINSTR):
            yield f"section changed: {SIGNATURE_SECTION}: is loaded as code or data, and so is not a note"
        if section.type not in (elf.SHT_PROGBITS, elf.SHT_NOTE):  # for example relocations, which Xen would apply
            yield f"section changed: {SIGNATURE_SECTION}: is of type {section.type}, and so is not a note"


def _signed_since(note: Note | None, was: Note | None, view: elf.Object, mangled: elf.Object) -> str:
    """What a signer has done since; empty if nothing."""
    content, before = (one.section_named(SIGNATURE_SECTION) for one in (view, mangled))
    same = content and before and view.section_data(content) == mangled.section_data(before)
    if note is None or same:
        return ""
    return f"has space for a signature since, not signed yet ({note})" if note.blank else f"signed since ({note})"
