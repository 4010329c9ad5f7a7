"""Puts the manifest into the payload, as a section `.debug_lpmangle` that Xen does not load, and takes it out again.

What was there stays where it is. After it come the compressed manifest, a new section name table (the old one and one
more name) and a new section header table (the old one and one more header); the ELF header's e_shoff and e_shnum are
changed accordingly. The old tables stay, unused. The name begins with `.debug_` because `strip -g` then removes the
section, and debuginfod serves it.

A manifest cannot contain the digest of the file that contains the manifest: its `output` is the payload `without` the
section, as it was before `embed`, byte for byte. That and the section's own bytes determine the whole file.
"""

import os
import struct
import zlib

from lpmangle import elf
from lpmangle.errors import ElfError, ManifestError, PlanError, ProofError
from lpmangle.manifest.format import path_beside
from lpmangle.system.light import suppress
from lpmangle.xen.abi import MAX_SECTIONS

SECTION = ".debug_lpmangle"
ALIGNMENT = 8
# Far above the manifest of a million symbols.
MAX_TEXT = 512 << 20
# A manifest is 15 to 60 times as large as its compressed form. A small hostile file must not fill the memory: zlib can
# make a thousand times as much of it.
MAX_RATIO = 200
MAX_SMALL = 16 << 20
MAX_TWICE = 64 << 10

_E_SHOFF, _E_SHNUM = 5, 11  # among the fields of the ELF header from e_type on


def add(view: elf.Object, text: bytes) -> bytes:
    """The file of `view` with the manifest `text` embedded, and proven. Raises PlanError, ProofError."""
    content = compress(text)
    out = embed(view, content)
    prove(view, out, content)
    return out


def compress(text: bytes) -> bytes:
    """The section's content: the manifest as a zlib stream. Raises PlanError for one that readers would refuse."""
    content = zlib.compress(text, 9)
    if len(text) > _most(content):
        raise PlanError("its manifest is too large to be embedded", hint="leave --embed out")
    return content


def decompress(content: bytes, where: str = SECTION) -> bytes:
    """The manifest in a section's content, or in another place. Raises ManifestError."""
    if content[:1] in (b"\0", b"\1", b"\2"):
        content = _without_chdr(content)
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(content, _most(content) + 1)
    except zlib.error as error:
        raise ManifestError(f"the manifest in {where} is damaged: {error}") from None
    if stream.unconsumed_tail:
        raise ManifestError(f"the manifest in {where} is damaged: {len(content)} bytes become more than {len(text)}")
    if not stream.eof or stream.unused_data:
        raise ManifestError(f"the manifest in {where} is damaged: it is cut short, or bytes follow it")
    return text


def _most(content: bytes) -> int:
    """The most bytes that a compressed manifest may unpack to."""
    return min(MAX_TEXT, MAX_SMALL + MAX_RATIO * len(content))


def _without_chdr(content: bytes) -> bytes:
    """Undo objcopy --compress-debug-sections, if it was used; no zlib stream begins as its Elf_Chdr does (gABI).

    For a section that debuginfod serves, neither class nor byte order is known; the stream's checksum leaves no doubt.
    """
    if content[:4] in (b"\2\0\0\0", b"\0\0\0\2"):  # ELFCOMPRESS_ZSTD
        raise ManifestError(
            f"{SECTION} was compressed with zstd, which lpmangle does not read",
            hint="make a copy with objcopy --decompress-debug-sections PAYLOAD COPY, and name that",
        )
    for size in (24, 12):  # Elf64_Chdr, Elf32_Chdr
        stream = zlib.decompressobj()
        with suppress(zlib.error):
            # Compressed content hardly shrinks.
            inner = stream.decompress(content[size:], MAX_TWICE + 8 * len(content))
            if stream.eof:  # llvm-objcopy 14 leaves NULs after it
                return inner
    return content


def embed(view: elf.Object, content: bytes) -> bytes:
    """The file of `view` with `content` as its section SECTION. Raises PlanError if it cannot have one more section."""
    layout, count = view.layout, len(view.sections)
    if view.section_named(SECTION):
        raise PlanError(f"already has a section {SECTION}", hint="remove it first: objcopy -R " + SECTION)
    if count >= MAX_SECTIONS:
        raise PlanError(
            f"has {count} sections, Xen refuses one more",
            hint="leave --embed out: the manifest beside it says the same",
        )
    names = view.section_names
    out = bytearray(view.data)
    content_at = _append(out, content, 1)
    names_at = _append(out, bytes(view.section_data(names)) + SECTION.encode() + b"\0", 1)
    headers = [list(header) for header in _headers(view.data, view.e_shoff, count, layout)]
    headers[names.number][4:6] = names_at, names.size + len(SECTION) + 1
    headers.append([names.size, elf.SHT_PROGBITS, 0, 0, content_at, len(content), 0, 0, 1, 0])
    fields = list(layout.ehdr.unpack_from(out, 16))
    if fields[_E_SHNUM]:
        fields[_E_SHNUM] += 1
    else:  # gABI: the number of sections is in sh_size of section 0
        headers[0][5] += 1
    fields[_E_SHOFF] = _append(out, b"".join(layout.shdr.pack(*header) for header in headers), ALIGNMENT)
    layout.ehdr.pack_into(out, 16, *fields)
    return bytes(out)


def prove(before: elf.Object, after: bytes, content: bytes) -> None:
    """Raise ProofError unless `after` is `before` with `content` embedded and nothing else changed.

    Of the old bytes only e_shoff and e_shnum may differ. The section headers, read again from `after`, must be the old
    ones, except for the place and size of the section names (and the number of sections, if section 0 has it), and one
    more; every byte after the old file must be content, section names, headers, or zero.
    """
    old, layout, count, names = before.data, before.layout, len(before.sections), before.section_names
    masked = bytearray(memoryview(after)[: len(old)])
    if len(masked) < len(old):
        raise ProofError("the output is shorter than the input")
    was = layout.ehdr.unpack_from(old, 16)
    is_now = list(layout.ehdr.unpack_from(masked, 16))
    e_shoff, counted = is_now[_E_SHOFF], is_now[_E_SHNUM] - was[_E_SHNUM]
    for field in (_E_SHOFF, _E_SHNUM):
        is_now[field] = was[field]
    layout.ehdr.pack_into(masked, 16, *is_now)
    if masked != old:
        raise ProofError("embedding the manifest changed a byte that is neither e_shoff nor e_shnum")
    end = e_shoff + (count + 1) * layout.shdr.size
    if counted != bool(was[_E_SHNUM]) or e_shoff < len(old) or end != len(after):
        raise ProofError("there is not exactly one section more")
    headers = _headers(after, e_shoff, count + 1, layout)
    expected = [list(header) for header in _headers(old, before.e_shoff, count, layout)]
    expected[0][5] += not was[_E_SHNUM]
    names_at, content_at = headers[names.number][4], headers[count][4]
    new_names = bytes(before.section_data(names)) + SECTION.encode() + b"\0"
    expected[names.number][4:6] = names_at, len(new_names)
    expected.append([names.size, elf.SHT_PROGBITS, 0, 0, content_at, len(content), 0, 0, 1, 0])
    if [list(header) for header in headers] != expected:
        raise ProofError("a section header differs that has nothing to do with the manifest")
    rest = bytearray(memoryview(after)[:e_shoff])
    for what, at, data in (("manifest", content_at, content), ("section names", names_at, new_names)):
        if at < len(old) or rest[at : at + len(data)] != data:
            raise ProofError(f"the {what} are not where the section headers say")
        rest[at : at + len(data)] = bytes(len(data))
    if any(memoryview(rest)[len(old) :]):
        raise ProofError("more follows the old file than manifest, section names and headers")
    elf.parse(after)


def extract(view: elf.Object) -> bytes | None:
    """The manifest embedded in `view`; None if there is none. Raises ManifestError for one that cannot be read."""
    section = view.section_named(SECTION)
    if section is None or section.type == elf.SHT_NOBITS:  # SHT_NOBITS: eu-strip -g -f leaves that
        return None
    return decompress(bytes(view.section_data(section)))


def may_have_manifest(path: str, data: bytes) -> bool:
    """Whether a payload may have a manifest inside or beside it: a quick test without further imports."""
    beside = (path_beside(one) for one in (path, os.path.realpath(path)))
    return SECTION.encode() in data or any(map(os.path.exists, beside))


def without(view: elf.Object) -> elf.Object:
    """The payload as it was before `embed`, which is what the manifest's `output` describes.

    `view` itself if nothing is embedded, or if the file was changed since: the section is removed only if `embed` makes
    the same file again, byte for byte, from the result and the section's content.
    """
    section = view.sections[-1]
    if section.name != SECTION:
        return view
    from lpmangle.manifest.read import decode

    try:
        manifest = decode(decompress(bytes(view.section_data(section))))
        if manifest.section_headers is None or manifest.output.size > len(view.data):
            return view
        out = bytearray(view.data[: manifest.output.size])
        fields = list(view.layout.ehdr.unpack_from(out, 16))
        fields[_E_SHOFF] = manifest.section_headers
        if fields[_E_SHNUM]:
            fields[_E_SHNUM] -= 1
        view.layout.ehdr.pack_into(out, 16, *fields)
        bare = elf.parse(bytes(out))
        return bare if embed(bare, bytes(view.section_data(section))) == view.data else view
    # struct.error: a number that does not fit into its field.
    except (ElfError, ManifestError, PlanError, struct.error):
        return view


def _append(out: bytearray, data: bytes, alignment: int) -> int:
    """Append `data` to `out`, and return its offset."""
    out += bytes(-len(out) % alignment)
    at = len(out)
    out += data
    return at


def _headers(data: bytes, e_shoff: int, count: int, layout: elf.Layout) -> list[tuple[int, ...]]:
    return list(layout.shdr.iter_unpack(memoryview(data)[e_shoff : e_shoff + count * layout.shdr.size]))
