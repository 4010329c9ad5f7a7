"""Constants and names of Xen's livepatch interface, each with its place in Xen's sources."""

from lpmangle import elf

KSYM_NAME_LEN = 127  # xen/include/xen/symbols.h
MAX_NAME = KSYM_NAME_LEN - 1  # livepatch.c:build_symbol_table: strlcpy keeps this many bytes of a name
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

# Relocation types that store a whole address: they fill in livepatch_func.new_addr.
R_X86_64_64, R_AARCH64_ABS64, R_ARM_ABS32 = 1, 257, 2
ABSOLUTE_RELOCATION = {elf.EM_X86_64: R_X86_64_64, elf.EM_AARCH64: R_AARCH64_ABS64, elf.EM_ARM: R_ARM_ABS32}
