"""Everything that `check` can find: one table, in the order of Xen's work, then what the loader does not notice."""

from enum import StrEnum, unique
from errno import EEXIST, EINVAL, ENODATA, ENOENT, ENOMEM, ENOSPC, ENOSYS, EOPNOTSUPP, EOVERFLOW, ERANGE

_BUILD_AGAIN = "the file is damaged: build or copy it again"
_AS_LINKED = "link with ld -r and leave the file's structure to livepatch-build"
_CFLAGS = "compile with Xen's own flags (no -fPIC with GOT, no -mcmodel=large, no debug-only sections referenced)"
_NOTES = "let livepatch-build add it (--depends, --xen-depends; ld --build-id=sha1)"
_VERSION = "build for the hypervisor that will run it"


@unique
class Rule(StrEnum):
    """One thing that can be found: its key, the errno that Xen returns, what it means, what to do."""

    errno: int
    meaning: str
    remedy: str

    def __new__(cls, key: str, errno: int, meaning: str, remedy: str) -> "Rule":
        rule = str.__new__(cls, key)
        rule._value_ = key
        rule.errno, rule.meaning, rule.remedy = errno, meaning, remedy
        return rule

    # before the ELF file is looked at: tools/misc/xen-livepatch.c, livepatch_upload, verify_payload, get_name
    NAME_LENGTH = ("name-length", EINVAL, "a payload's name has at most 127 bytes", "give the file a shorter name")
    EMPTY_FILE = ("empty-file", EINVAL, "the file is empty", _BUILD_AGAIN)
    TOO_LARGE = ("too-large", EINVAL, "a payload has at most 2 MiB", "put less into one payload")
    NAME_IN_USE = (
        "name-in-use",
        EEXIST,
        "a payload of this name is loaded",
        "upload it under another name, or unload that one",
    )
    # livepatch_elf.c:livepatch_header_check, arch_livepatch_verify_elf
    HEADER_TRUNCATED = ("header-truncated", EINVAL, "the file ends inside the ELF header", _BUILD_AGAIN)
    NOT_ELF = ("not-elf", EINVAL, "not an ELF file", "name the *.livepatch file that livepatch-build wrote")
    ELF_HEADER = ("elf-header", EOPNOTSUPP, "not a relocatable file (ET_REL) as Xen requires", _AS_LINKED)
    ELF_MACHINE = ("elf-machine", EOPNOTSUPP, "made for another machine", _VERSION)
    ARM_EABI = ("arm-eabi", EOPNOTSUPP, "not made for the Arm EABI, version 5", _VERSION)
    NO_SECTION_NAMES = ("no-section-names", EINVAL, "the file has no section names", _AS_LINKED)
    TOO_MANY_SECTIONS = (
        "too-many-sections",
        EOPNOTSUPP,
        "1024 or more sections",
        "compile what the patch does not touch without -ffunction-sections, or split the patch",
    )
    SECTION_NAMES_INDEX = ("section-names-index", EINVAL, "e_shstrndx is not one of the sections", _BUILD_AGAIN)
    SECTION_TABLE_OFFSET = (
        "section-table-offset",
        EINVAL,
        "the section header table lies outside the file",
        _BUILD_AGAIN,
    )
    SECTION_HEADER_SIZE = ("section-header-size", EINVAL, "section headers are too small", _VERSION)
    SECTION_TABLE_TRUNCATED = (
        "section-table-truncated",
        EINVAL,
        "the file ends inside the section header table",
        _BUILD_AGAIN,
    )
    # livepatch_elf.c:elf_resolve_sections
    SECTION_IN_HEADER = ("section-in-header", EINVAL, "a section's data begins inside the ELF header", _AS_LINKED)
    SECTION_PAST_END = ("section-past-end", EINVAL, "a section's data lies outside the file", _BUILD_AGAIN)
    SECTION_ALIGNMENT = ("section-alignment", EOPNOTSUPP, "an alignment that is not a power of two", _AS_LINKED)
    SECTION_ADDRESS = ("section-address", EINVAL, "a section's address does not fit its alignment", _AS_LINKED)
    SECTION_NOBITS_SIZE = (
        "section-nobits-size",
        EINVAL,
        "a section of zeros of more than 2 MiB",
        "make the variable smaller, or allocate it",
    )
    TWO_SYMBOL_TABLES = ("two-symbol-tables", EOPNOTSUPP, "more than one symbol table", _AS_LINKED)
    SYMTAB_LINK = ("symtab-link", EINVAL, "the symbol table's string table is not one of the sections", _BUILD_AGAIN)
    SYMTAB_LINK_ZERO = ("symtab-link-zero", 0, "the symbol table names section 0 as its string table", _BUILD_AGAIN)
    NO_SYMBOL_TABLE = (
        "no-symbol-table",
        EINVAL,
        "no symbol table",
        "take the payload before it was stripped of symbols",
    )
    SYMTAB_HEADER = ("symtab-header", EINVAL, "the symbol table's sizes do not fit together", _BUILD_AGAIN)
    STRING_TABLE = ("string-table", EINVAL, "the string table does not begin and end with a NUL", _BUILD_AGAIN)
    SECTION_WRAPS = ("section-wraps", 0, "a section's end lies beyond the address space", _BUILD_AGAIN)
    # livepatch_elf.c:elf_resolve_section_names, elf_get_sym
    SECTION_STRING_TABLE = (
        "section-string-table",
        EINVAL,
        "the section name table does not begin and end with a NUL",
        _BUILD_AGAIN,
    )
    SECTION_NAME = ("section-name", EINVAL, "a section's name lies outside the section name table", _BUILD_AGAIN)
    SYMBOL_NAME = ("symbol-name", EINVAL, "a symbol's name lies outside the string table", _BUILD_AGAIN)
    THUMB_SYMBOL = ("thumb-symbol", EINVAL, "Thumb code", "compile with -marm")
    UNALIGNED = (
        "unaligned",
        0,
        "data that is not aligned: Xen on 32-bit Arm crashes when it reads it",
        "align it, after objcopy --add-section with: objcopy --set-section-alignment SECTION=4",
    )
    SYMBOLS_MEMORY = ("symbols-memory", ENOMEM, "more symbols than Xen has memory for", _BUILD_AGAIN)
    # move_payload, calc_section
    SECTION_FLAGS = (
        "section-flags",
        EOPNOTSUPP,
        "a loaded section is writable and executable",
        "separate code from data",
    )
    PAYLOAD_MEMORY = (
        "payload-memory",
        ENOMEM,
        "more memory than Xen has for payloads",
        "make sections or alignments smaller",
    )
    SECTION_OVERRUN = ("section-overrun", 0, "a section does not fit into the memory that Xen allots", _AS_LINKED)
    # livepatch_elf.c:livepatch_elf_resolve_symbols
    COMMON_SYMBOL = ("common-symbol", EINVAL, "a COMMON symbol", "compile with -fno-common")
    UNKNOWN_SYMBOL = (
        "unknown-symbol",
        ENOENT,
        "defined neither by the hypervisor nor by a loaded payload",
        "build against exactly this hypervisor, and first load the payload that introduces the symbol; if that one "
        "is mangled: lpmangle --against BELOW PAYLOAD",
    )
    RESERVED_SYMBOL_SECTION = ("reserved-symbol-section", EOPNOTSUPP, "a symbol in a reserved section", _BUILD_AGAIN)
    SYMBOL_SECTION = ("symbol-section", EINVAL, "a symbol in a section that does not exist", _BUILD_AGAIN)
    # livepatch_elf.c:livepatch_elf_perform_relocs, arch_livepatch_perform, arch_livepatch_perform_rel(a)
    RELOC_TARGET_ZERO = ("reloc-target-zero", 0, "a relocation section applies to section 0", _BUILD_AGAIN)
    RELOC_LINK = ("reloc-link", EINVAL, "relocations do not refer to the symbol table", _AS_LINKED)
    RELOC_HEADER = ("reloc-header", EINVAL, "a relocation section's sizes do not fit together", _BUILD_AGAIN)
    RELOC_REL = ("reloc-rel", EOPNOTSUPP, "relocations without addends (SHT_REL)", _AS_LINKED)
    RELOC_REL_ARM64 = ("reloc-rel-arm64", ENOSYS, "relocations without addends (SHT_REL)", _AS_LINKED)
    RELOC_SYMBOL_ZERO = ("reloc-symbol-zero", EOPNOTSUPP, "a relocation to symbol 0", _AS_LINKED)
    RELOC_SYMBOL = ("reloc-symbol", EINVAL, "a relocation to a symbol that does not exist", _BUILD_AGAIN)
    RELOC_IGNORED_SYMBOL = (
        "reloc-ignored-symbol",
        EINVAL,
        "a relocation to a symbol in a section that is not loaded",
        _CFLAGS,
    )
    RELOC_OFFSET = ("reloc-offset", EINVAL, "a relocation past the end of its section", _BUILD_AGAIN)
    RELOC_OUTSIDE = ("reloc-outside", 0, "a relocation outside the payload, which Xen does not notice", _BUILD_AGAIN)
    RELOC_OVERFLOW = ("reloc-overflow", EOVERFLOW, "a relocation that cannot reach its target", _CFLAGS)
    RELOC_TYPE = ("reloc-type", EOPNOTSUPP, "a relocation of a type that Xen does not know", _CFLAGS)
    # check_special_sections, check_patching_sections, section_ok
    SECTION_MISSING = ("section-missing", EINVAL, "a section that every payload must have is missing", _NOTES)
    SECTION_EMPTY = ("section-empty", EINVAL, "a section that must not be empty is empty", _NOTES)
    NOTHING_TO_PATCH = (
        "nothing-to-patch",
        EINVAL,
        "neither functions to replace nor hooks to call",
        "look at the patch: it changes no code",
    )
    SECTION_SIZE = ("section-size", EINVAL, "a section whose size is not a whole number of entries", _VERSION)
    # prepare_payload: functions, hooks; arch_livepatch_verify_func, arch_livepatch_verify_distance
    FUNC_VERSION = (
        "func-version",
        EOPNOTSUPP,
        "struct livepatch_func of another version",
        "use the livepatch-build-tools of this Xen",
    )
    FUNC_OLD_SIZE_ZERO = (
        "func-old-size-zero",
        EINVAL,
        "a function to replace that has no size",
        "give the function its size (.size)",
    )
    FUNC_OLD_ADDRESS = (
        "func-old-address",
        ENOENT,
        "the function to replace is not known",
        "build against exactly this hypervisor; for a function of a mangled payload: lpmangle --against BELOW PAYLOAD",
    )
    FUNC_NOP_SIZE = (
        "func-nop-size",
        EOPNOTSUPP,
        "more instructions to delete than Xen can keep (31 bytes)",
        "delete less at once",
    )
    FUNC_NOP_OLD_SIZE = (
        "func-nop-old-size",
        EINVAL,
        "more bytes to delete than the function has",
        "correct new_size or old_size",
    )
    FUNC_OLD_SIZE = (
        "func-old-size",
        EINVAL,
        "the function to replace is too short for a jump",
        "patch its caller instead",
    )
    FUNC_DISTANCE = ("func-distance", EOVERFLOW, "replacement and function are too far apart for a jump", _BUILD_AGAIN)
    FUNC_NAME_POINTER = ("func-name-pointer", 0, "the name of a function to replace points nowhere", _BUILD_AGAIN)
    FUNC_OLD_POINTER = (
        "func-old-pointer",
        0,
        "the address of a function to replace points nowhere",
        "leave old_addr 0: Xen looks it up",
    )
    FUNC_OTHER_PAYLOAD = (
        "func-other-payload",
        0,
        "Xen on Arm can replace its own functions only, not those of another payload",
        "replace the hypervisor's function, with a cumulative payload",
    )
    FUNC_READ_ONLY = (
        "func-read-only",
        0,
        "apply writes to .livepatch.funcs, which is read-only (a bug of this version of Xen)",
        "make the section writable before lpmangle: objcopy --set-section-flags .livepatch.funcs=alloc,data",
    )
    FUNC_INIT = (
        "func-init",
        0,
        "the function to replace is in init memory, which Xen frees after boot",
        "leave it out of the payload: it does not run again",
    )
    FUNC_NOP_ENDBR = (
        "func-nop-endbr",
        0,
        "fewer than 4 bytes to delete where the code begins with ENDBR64",
        "delete 4 or more",
    )
    SECTION_NOT_LOADED = (
        "section-not-loaded",
        0,
        "a section that Xen reads is not loaded (no SHF_ALLOC)",
        "set its flags to alloc,readonly",
    )
    SECTION_IN_FILE = (
        "section-in-file",
        0,
        "a section that is not loaded (no SHF_ALLOC): Xen reads it in the file, even later, when the file is freed",
        "set its flags to alloc,readonly",
    )
    HOOK_COUNT = ("hook-count", EINVAL, "only one hook of this kind is allowed", "call all of them from one function")
    # prepare_payload: build-ids (version.c:xen_build_id_check), xen_build_id_dep, check_xen_buildid
    NOTE_FORMAT = ("note-format", EINVAL, "not a GNU build-id note", _NOTES)
    BUILD_ID_LOADED = (
        "build-id-loaded",
        EEXIST,
        "the same payload is loaded under another name",
        "unload that one first",
    )
    XEN_NO_BUILD_ID = (
        "xen-no-build-id",
        ENODATA,
        "the hypervisor has no build-id",
        "link the hypervisor with --build-id=sha1",
    )
    XEN_DEPENDS = (
        "xen-depends",
        EINVAL,
        "made for another hypervisor",
        "build it against the xen-syms of the hypervisor that runs",
    )
    # prepare_payload: the rest
    EX_TABLE = (
        "ex-table",
        EOPNOTSUPP,
        "an exception table, which Xen on Arm does not support",
        "leave the construct out",
    )
    ALTERNATIVES_NO_TEXT = ("alternatives-no-text", EINVAL, "alternatives, but no code", _AS_LINKED)
    ALTERNATIVES_NO_REPLACEMENT = (
        "alternatives-no-replacement",
        EINVAL,
        "alternatives, but no .altinstr_replacement",
        _AS_LINKED,
    )
    ALTERNATIVES_RANGE = ("alternatives-range", EINVAL, "an alternative for code outside the payload", _AS_LINKED)
    ALTERNATIVES_SIZE = ("alternatives-size", ENOSPC, "an alternative that is longer than what it replaces", _AS_LINKED)
    ALTERNATIVES_FEATURE = (
        "alternatives-feature",
        ERANGE,
        "an alternative for a CPU feature that Xen does not know",
        _VERSION,
    )
    ALTERNATIVES_BUG = (
        "alternatives-bug",
        0,
        "an alternative that does not fit (BUG in apply_alternatives)",
        _AS_LINKED,
    )
    ALTERNATIVES_PROCESSOR = (
        "alternatives-processor",
        0,
        "an alternative of another length than its original: Xen on Arm dies (BUG) where the processor has the feature",
        _AS_LINKED,
    )
    ALTERNATIVES_CALLBACK = (
        "alternatives-callback",
        0,
        "an alternative for a feature that Xen on Arm does not know: it calls the replacement",
        _VERSION,
    )
    ALTERNATIVE_CALLS = (
        "alternative-calls",
        EOPNOTSUPP,
        "alternative calls, which Xen supports only on x86",
        "leave the construct out",
    )
    ALTERNATIVE_CALLS_NO_TEXT = ("alternative-calls-no-text", EINVAL, "alternative calls, but no code", _AS_LINKED)
    ALTERNATIVE_CALLS_RANGE = (
        "alternative-calls-range",
        EINVAL,
        "an alternative call outside the payload's code",
        _AS_LINKED,
    )
    ALTERNATIVE_CALLS_CODE = (
        "alternative-calls-code",
        EINVAL,
        "an alternative call that is not call *DISPLACEMENT(%rip)",
        _AS_LINKED,
    )
    ALTERNATIVE_CALLS_POINTER = (
        "alternative-calls-pointer",
        0,
        "an alternative call by a pointer that is nowhere",
        _BUILD_AGAIN,
    )
    MODINFO = ("modinfo", EINVAL, ".modinfo does not end with a NUL", "end every string of .modinfo with a NUL")
    MODINFO_EMPTY = ("modinfo-empty", 0, ".modinfo is empty: Xen reads elsewhere", "leave the section out")
    # build_symbol_table
    DUPLICATE_SYMBOL = (
        "duplicate-symbol",
        EEXIST,
        "the name is in use",
        "make the names unique: lpmangle PAYLOAD (with --scope new for GLOBAL symbols)",
    )
    # livepatch_action: what would happen next
    APPLY_DEPENDS = (
        "apply-depends",
        EINVAL,
        "it depends on something other than what is applied",
        "build with the right --depends",
    )
    REPLACE_HOOKS = (
        "replace-hooks",
        EOPNOTSUPP,
        "replace is not possible with vetoing hooks",
        "revert the applied payloads, then apply this one",
    )
    EXPECTATION = ("expectation", EINVAL, "the code to replace is not what the payload expects", _VERSION)
    EXPECTATION_SIZE = ("expectation-size", ERANGE, "more code expected than the function has", _VERSION)
    # not checked: what would have to be known
    NO_HYPERVISOR_TABLE = (
        "no-hypervisor-table",
        0,
        "needs the hypervisor's symbol table",
        "give --xen xen-syms, or a copy of /proc/xen/xensyms",
    )
    UNKNOWN_VERSION = (
        "unknown-version",
        0,
        "the rules of this version are not known here",
        "give --xen-version; versions 4.14 to 4.22 are known",
    )
    NO_HYPERVISOR_BUILD_ID = ("no-hypervisor-build-id", 0, "needs the hypervisor's build-id", "give --xen xen-syms")
    NO_HYPERVISOR_CODE = ("no-hypervisor-code", 0, "needs the hypervisor's code", "give --xen xen-syms")
    # beyond the loader
    OTHER_FILE = ("other-file", 0, "not a livepatch payload", "name the *.livepatch file that livepatch-build wrote")
    RELOC_COMPACT = (
        "reloc-compact",
        0,
        "relocations of a type that Xen does not know: it ignores them, and addresses stay as they were compiled",
        "compile without them: for SHT_CREL without -Wa,--crel, and with GNU as or clang's default",
    )
    DUPLICATE_ACCEPTED = (
        "duplicate-accepted",
        0,
        "the name is in use, which this vendor's Xen only prints",
        "lpmangle PAYLOAD",
    )
    INIT_SYMBOL = (
        "init-symbol",
        0,
        "refers to init memory, which Xen frees after boot: accessing it crashes the hypervisor",
        "remove what refers to it from the payload, or make sure that it is never reached",
    )
    STATE_RESET = (
        "state-reset",
        0,
        "variables that are also in the replaced payload start anew, and their values are lost",
        "if that matters, copy the values in a hook (load or apply), or stack the fix instead of replacing",
    )
    TWIN = (
        "twin",
        0,
        "a variable that the hypervisor also has, under another name: there are then two copies, each with a value",
        "check whether it was copied by accident; let the payload refer to the hypervisor's",
    )
    FUNC_NOP_INSIDE = (
        "func-nop-inside",
        0,
        "a deletion that ends inside an instruction: what is left of it is executed",
        "delete whole instructions (new_size)",
    )
    RELOC_CALL_ODD = (
        "reloc-call-odd",
        0,
        "a call over an odd number of words, which Xen on 32-bit Arm makes land 4 bytes early",
        "align functions to 8 bytes (-falign-functions=8) and look at the call, or patch another caller",
    )
    RELOC_ADDEND_DROPPED = (
        "reloc-addend-dropped",
        0,
        "a MOVW or MOVT with an addend in place, which Xen on 32-bit Arm drops",
        "compile with -fno-section-anchors",
    )
    NOT_MANGLED = ("not-mangled", 0, "will clash with the next payload made from the same sources", "lpmangle PAYLOAD")
    NEW_GLOBAL = ("new-global", 0, "will clash with the next cumulative payload", "lpmangle --scope new PAYLOAD")
    SAME_NAME = (
        "same-name",
        0,
        "several new symbols of one name: Xen does not notice, and a stacked payload gets the first",
        "lpmangle cannot tell them apart: rename one",
    )
    COMMON_NAME = ("common-name", 0, "a name that others are likely to use", "lpmangle --scope new PAYLOAD")
    LONG_NAME = ("long-name", 0, "Xen keeps 126 bytes of a name", "lpmangle shortens such names in the middle")
    DEBUG_SIZE = (
        "debug-size",
        0,
        "more than 2 MiB only because of debug information",
        "strip -g PAYLOAD (before lpmangle)",
    )
