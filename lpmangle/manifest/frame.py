"""The frame of a payload, for its manifest: all bytes that a tool does not keep when it rewrites the file.

objcopy and similar tools keep the content of sections, and write everything else in their own way: headers, tables of
names and symbols, padding. From such a file and the frame, the original can be rebuilt (`rebuild`); its digest says
whether it is the same. The frame also has the relocations of loaded sections, so that changes in them are found, and
the notes that signers and RPM's find-debuginfo change.

It is compressed by zlib, in base64: where the section headers begin (u64), and their number (u32); the ELF header; the
section headers; a byte for each section, 1 if its content is not in the frame; a CRC-32 of each of these (u32); all
bytes that are in none of the above, in order. Numbers are little endian.
"""

import zlib
from binascii import a2b_base64, b2a_base64
from struct import Struct

from lpmangle import elf
from lpmangle.errors import ElfError, ManifestError
from lpmangle.system.light import Iterable, Iterator
from lpmangle.xen.abi import BUILD_ID_SECTION, SIGNATURE_SECTION

# Half of what Xen accepts. Most of a large payload is in its sections.
MAX_SIZE = 1 << 20
_LEVEL = 6  # 9 would save 2 percent more, in twenty times the time
_HEAD = Struct("<QI")
_CRC = Struct("<I")
_WRITTEN_ANEW = (
    *(elf.SHT_NULL, elf.SHT_NOBITS, elf.SHT_SYMTAB, elf.SHT_STRTAB, elf.SHT_GROUP),
    *(elf.SHT_SYMTAB_SHNDX, elf.SHT_LLVM_ADDRSIG),
)
_CHANGED_BY_DESIGN = (SIGNATURE_SECTION, BUILD_ID_SECTION)


def encode(view: elf.Object) -> str | None:
    """The frame of a file; None for one that is too large."""
    data, sections, e_shoff = view.data, view.sections, view.e_shoff
    end = view.section_header_offset(len(sections))
    flags = bytes(_is_content(view, section) for section in sections)
    contents = [section for section in sections if flags[section.number]]
    taken = [(0, view.layout.ehdr_size), (e_shoff, end), *((section.offset, section.end) for section in contents)]
    gaps = list(_gaps(taken, len(data)))
    if sum(stop - start for start, stop in gaps) > MAX_SIZE:
        return None
    rest = [data[start:stop] for start, stop in gaps]
    checks = [_CRC.pack(checksum(view.section_data(section))) for section in contents]
    head = _HEAD.pack(e_shoff, len(sections)), data[: view.layout.ehdr_size], data[e_shoff:end], flags
    raw = b"".join((*head, *checks, *rest))
    if len(raw) > MAX_SIZE:
        return None
    return b2a_base64(zlib.compress(raw, _LEVEL), newline=False).decode()


def _is_content(view: elf.Object, section: elf.Section) -> bool:
    """Whether other tools keep the content of a section."""
    if section.type in _WRITTEN_ANEW or section.name in _CHANGED_BY_DESIGN:
        return False
    if section.type in (elf.SHT_REL, elf.SHT_RELA):
        return not view.sections[section.info].flags & elf.SHF_ALLOC
    return True


def checksum(content: memoryview | bytes) -> int:
    """The checksum that shows which section was changed; the digest of the whole file shows whether any was."""
    return zlib.crc32(content)


def decode(text: str) -> bytes:
    """The frame without its compression. Raises ManifestError."""
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(a2b_base64(text, strict_mode=True), MAX_SIZE)
    except (ValueError, zlib.error) as error:  # ValueError: binascii.Error, or not ASCII
        raise ManifestError(f"the frame in the manifest is damaged: {error}") from None
    if not stream.eof or stream.unused_data:
        raise ManifestError("the frame in the manifest is damaged: it is cut short, or bytes follow it")
    return raw


def unfold(raw: bytes, size: int, most: int) -> tuple[elf.Object, dict[int, int]]:
    """The file of `size` bytes, with zeros where the frame has nothing; and the checksum of each such section.

    These sections may have at most `most` bytes in total. Raises ElfError for data that is not a frame.
    """
    e_shoff, count = _HEAD.unpack_from(raw.ljust(_HEAD.size, b"\0"))
    raw = raw[_HEAD.size :]
    layout = elf.Layout(raw[4:5] == bytes([elf.ELFCLASS64]), raw[5:6] == bytes([elf.ELFDATA2MSB]))
    headers_end = e_shoff + count * layout.shdr.size
    parts = [layout.ehdr_size, count * layout.shdr.size, count]
    if size > len(raw) + most or headers_end > size or sum(parts) > len(raw) or layout.ehdr_size > e_shoff:
        raise ElfError("it is cut short")
    out = bytearray(size)
    ehdr, headers, flags = (raw[sum(parts[:n]) : sum(parts[: n + 1])] for n in range(3))
    rest = memoryview(raw)[sum(parts) :]
    contents = [
        (number, offset, offset + length)
        for number, (_, _, _, _, offset, length, *_) in enumerate(layout.shdr.iter_unpack(headers))
        if flags[number]
    ]
    lengths = sum(stop - start for _, start, stop in contents)
    if lengths > size + most or len(rest) < _CRC.size * len(contents):
        raise ElfError("it is cut short")
    checks = {number: _CRC.unpack_from(rest, _CRC.size * at)[0] for at, (number, _, _) in enumerate(contents)}
    rest = rest[_CRC.size * len(contents) :]
    out[: layout.ehdr_size] = ehdr
    out[e_shoff:headers_end] = headers
    taken = [(0, layout.ehdr_size), (e_shoff, headers_end), *((start, stop) for _, start, stop in contents)]
    gaps = list(_gaps(taken, size))
    if sum(stop - start for start, stop in gaps) != len(rest):
        raise ElfError("it does not have as many bytes as it says")
    for start, stop in gaps:
        out[start:stop] = rest[: stop - start]
        rest = rest[stop - start :]
    return elf.parse(bytes(out)), checks


def _gaps(taken: Iterable[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file of that size that are in none of the ranges `taken`, as pairs of start and end."""
    at = 0
    for start, stop in sorted(taken):
        if at < start:
            yield at, min(start, size)
        at = max(at, stop)
        if at >= size:
            return
    yield at, size
