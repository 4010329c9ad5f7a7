"""Constants and names of Xen's livepatch interface, each with its place in Xen's sources."""

from lpmangle import elf

KSYM_NAME_LEN = 127  # xen/include/xen/symbols.h
MAX_NAME = KSYM_NAME_LEN - 1  # livepatch.c:build_symbol_table: strlcpy keeps this many bytes of a name
MAX_PAYLOAD_NAME = 127  # xen/include/public/sysctl.h: XEN_LIVEPATCH_NAME_SIZE is 128, with the NUL
LIVEPATCH_MAX_SIZE = 2 << 20  # xen/include/xen/livepatch.h, checked by livepatch.c:verify_payload
MAX_SECTIONS = 1023  # livepatch_elf.c:livepatch_header_check: "Too many (%u) sections"
PAGE_SIZE = 4096

FUNCS_SECTION = ".livepatch.funcs"
HOOKS_PREFIX = ".livepatch.hooks."
BUILD_ID_SECTION = ".note.gnu.build-id"
DEPENDS_SECTION = ".livepatch.depends"
XEN_DEPENDS_SECTION = ".livepatch.xen_depends"
SIGNATURE_SECTION = ".note.Xen.signature"  # of vendors; `signature` says where it comes from
NT_GNU_BUILD_ID = 3

LIVEPATCH_PAYLOAD_VERSION = 2  # xen/include/public/sysctl.h, since 4.13
EXPECTATION_SIZE = 32  # sizeof(struct livepatch_expectation)


def func_version_at(pointer: int) -> int:
    """Offset of `version` in struct livepatch_func (xen/include/public/sysctl.h); `pointer` is a pointer's size.

    Before it are name, new_addr and old_addr (pointers), new_size and old_size (uint32_t).
    """
    return 3 * pointer + 8


def func_size(pointer: int, version: int) -> int:
    """sizeof(struct livepatch_func): behind `version` 31 bytes of Xen's; in version 2 8 more, and the expectation."""
    return func_version_at(pointer) + 32 + (8 + EXPECTATION_SIZE if version == 2 else 0)


# Relocation types that store a whole address: they fill in livepatch_func.new_addr.
R_X86_64_64, R_AARCH64_ABS64, R_ARM_ABS32 = 1, 257, 2
ABSOLUTE_RELOCATION = {elf.EM_X86_64: R_X86_64_64, elf.EM_AARCH64: R_AARCH64_ABS64, elf.EM_ARM: R_ARM_ABS32}
