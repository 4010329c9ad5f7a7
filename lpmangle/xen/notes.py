"""Build-id notes as the hypervisor reads them, its own and those of payloads."""

import errno
from struct import Struct

from lpmangle.xen.abi import NT_GNU_BUILD_ID

HEADER_SIZE = 12  # Elf_Note: namesz, descsz, type


def parse_build_id(content: bytes, size: int, word: Struct) -> tuple[int, bytes]:
    """The errno (0 if it is sound) and the build-id of a note of `size` bytes.

    The rule is xen/common/version.c:xen_build_id_check, which reads only the first note. `content` may be longer than
    `size`: a descriptor after a name that is not padded ends up to 3 bytes after what Xen counts. `word` is an Elf_Word
    in the payload's byte order.
    """
    if size <= HEADER_SIZE:
        return errno.EINVAL, b""
    name_size, id_size, kind = (word.unpack_from(content, at)[0] for at in (0, 4, 8))
    if kind != NT_GNU_BUILD_ID:
        return errno.ENODATA, b""
    # The sum is of 32 bits, the padding is not counted.
    if name_size + id_size > 0xFFFFFFFF or name_size < 4 or name_size + id_size > size - HEADER_SIZE:
        return errno.EINVAL, b""
    if content[12:16] != b"GNU\0":
        return errno.ENODATA, b""
    if not id_size:
        return errno.EINVAL, b""
    start = HEADER_SIZE + (name_size + 3) // 4 * 4
    return 0, content[start : start + id_size]
