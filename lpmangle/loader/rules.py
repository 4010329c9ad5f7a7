"""What the check finds, and the table of everything it can find."""

from errno import EEXIST, EINVAL, ENOENT, ENOMEM, ENOSPC, ENOSYS, EOPNOTSUPP, EOVERFLOW, ERANGE
from errno import errorcode as ERRNO_NAMES
from typing import NamedTuple

REFUSED = "refused"
CRASH = "crash"
NOT_CHECKED = "not checked"
WARNING = "warning"

# A payload with a thousand bad relocations is bad enough with so many of them.
MOST_PER_RULE = 50

_BUILD_AGAIN = "the file is damaged: build or copy it again"
_AS_LINKED = "link with ld -r and leave the file's structure to livepatch-build"
_CFLAGS = "compile with Xen's own flags (no -fPIC with GOT, no -mcmodel=large, no debug-only sections referenced)"
_NOTES = "let livepatch-build add it (--depends, --xen-depends; ld --build-id=sha1)"
_VERSION = "build for the hypervisor that is to run it"


class Rule(NamedTuple):
    """One thing that can be found: the errno that comes back, what it means, what to do."""

    errno: int
    meaning: str
    remedy: str


RULES: dict[str, Rule] = {
    # before the ELF file is looked at: tools/misc/xen-livepatch.c, livepatch_upload, verify_payload, get_name
    "name-length": Rule(EINVAL, "a payload's name has at most 127 bytes", "give the file a shorter name"),
    "empty-file": Rule(EINVAL, "the file is empty", _BUILD_AGAIN),
    "too-large": Rule(EINVAL, "a payload has at most 2 MiB", "build less into one payload"),
    "name-in-use": Rule(EEXIST, "a payload of this name is loaded", "upload it under another name, or unload that one"),
    # livepatch_elf.c:livepatch_header_check, arch_livepatch_verify_elf
    "header-truncated": Rule(EINVAL, "the file ends inside the ELF header", _BUILD_AGAIN),
    "not-elf": Rule(EINVAL, "not an ELF file", "name the *.livepatch file that livepatch-build wrote"),
    "elf-header": Rule(EOPNOTSUPP, "not a relocatable file (ET_REL) as Xen wants it", _AS_LINKED),
    "elf-machine": Rule(EOPNOTSUPP, "made for another machine", _VERSION),
    "arm-eabi": Rule(EOPNOTSUPP, "not made for the Arm EABI, version 5", _VERSION),
    "no-section-names": Rule(EINVAL, "the file has no section names", _AS_LINKED),
    "too-many-sections": Rule(
        EOPNOTSUPP,
        "1024 or more sections",
        "compile without -ffunction-sections what the patch leaves alone, or split it",
    ),
    "section-names-index": Rule(EINVAL, "e_shstrndx is not one of the sections", _BUILD_AGAIN),
    "section-table-offset": Rule(EINVAL, "the section header table lies outside the file", _BUILD_AGAIN),
    "section-header-size": Rule(EINVAL, "section headers are too small", _VERSION),
    "section-table-truncated": Rule(EINVAL, "the file ends inside the section header table", _BUILD_AGAIN),
    # livepatch_elf.c:elf_resolve_sections
    "section-in-header": Rule(EINVAL, "a section's data begins inside the ELF header", _AS_LINKED),
    "section-past-end": Rule(EINVAL, "a section's data lies outside the file", _BUILD_AGAIN),
    "section-alignment": Rule(EOPNOTSUPP, "an alignment that is no power of two", _AS_LINKED),
    "section-address": Rule(EINVAL, "a section's address does not fit its alignment", _AS_LINKED),
    "section-nobits-size": Rule(
        EINVAL, "a section of zeros of more than 2 MiB", "make the variable smaller, or allocate it"
    ),
    "two-symbol-tables": Rule(EOPNOTSUPP, "more than one symbol table", _AS_LINKED),
    "symtab-link": Rule(EINVAL, "the symbol table's string table is not one of the sections", _BUILD_AGAIN),
    "symtab-link-zero": Rule(0, "the symbol table names section 0 as its string table", _BUILD_AGAIN),
    "no-symbol-table": Rule(EINVAL, "no symbol table", "take the payload before it was stripped of symbols"),
    "symtab-header": Rule(EINVAL, "the symbol table's sizes do not fit together", _BUILD_AGAIN),
    "string-table": Rule(EINVAL, "the string table does not begin and end with a NUL", _BUILD_AGAIN),
    "section-wraps": Rule(0, "a section's end lies beyond the address space", _BUILD_AGAIN),
    # livepatch_elf.c:elf_resolve_section_names, elf_get_sym
    "section-string-table": Rule(EINVAL, "the section name table does not begin and end with a NUL", _BUILD_AGAIN),
    "section-name": Rule(EINVAL, "a section's name lies outside the section name table", _BUILD_AGAIN),
    "symbol-name": Rule(EINVAL, "a symbol's name lies outside the string table", _BUILD_AGAIN),
    "thumb-symbol": Rule(EINVAL, "Thumb code", "compile with -marm"),
    # move_payload, calc_section
    "section-flags": Rule(EOPNOTSUPP, "a loaded section is writable and executable", "separate code from data"),
    "payload-memory": Rule(ENOMEM, "more memory than Xen has for payloads", "make sections or alignments smaller"),
    "section-overrun": Rule(0, "a section does not fit into the memory that Xen allots", _AS_LINKED),
    # livepatch_elf.c:livepatch_elf_resolve_symbols
    "common-symbol": Rule(EINVAL, "a COMMON symbol", "compile with -fno-common"),
    "unknown-symbol": Rule(
        ENOENT,
        "defined neither by the hypervisor nor by a loaded payload",
        "build against this very hypervisor, and load the payload that introduces the symbol before; if that one is "
        "mangled: lpmangle --against IT PAYLOAD",
    ),
    "reserved-symbol-section": Rule(EOPNOTSUPP, "a symbol in a reserved section", _BUILD_AGAIN),
    "symbol-section": Rule(EINVAL, "a symbol in a section that does not exist", _BUILD_AGAIN),
    # livepatch_elf.c:livepatch_elf_perform_relocs, arch_livepatch_perform, arch_livepatch_perform_rel(a)
    "reloc-target-zero": Rule(0, "a relocation section applies to section 0", _BUILD_AGAIN),
    "reloc-link": Rule(EINVAL, "relocations do not refer to the symbol table", _AS_LINKED),
    "reloc-header": Rule(EINVAL, "a relocation section's sizes do not fit together", _BUILD_AGAIN),
    "reloc-rel": Rule(EOPNOTSUPP, "relocations without addends (SHT_REL)", _AS_LINKED),
    "reloc-rel-arm64": Rule(ENOSYS, "relocations without addends (SHT_REL)", _AS_LINKED),
    "reloc-symbol-zero": Rule(EOPNOTSUPP, "a relocation to symbol 0", _AS_LINKED),
    "reloc-symbol": Rule(EINVAL, "a relocation to a symbol that does not exist", _BUILD_AGAIN),
    "reloc-ignored-symbol": Rule(EINVAL, "a relocation to a symbol in a section that is not loaded", _CFLAGS),
    "reloc-offset": Rule(EINVAL, "a relocation behind the end of its section", _BUILD_AGAIN),
    "reloc-overflow": Rule(EOVERFLOW, "a relocation that cannot reach its target", _CFLAGS),
    "reloc-type": Rule(EOPNOTSUPP, "a relocation of a type that Xen does not know", _CFLAGS),
    # check_special_sections, check_patching_sections, section_ok
    "section-missing": Rule(EINVAL, "a section that every payload must have is missing", _NOTES),
    "section-empty": Rule(EINVAL, "a section that must not be empty is", _NOTES),
    "nothing-to-patch": Rule(
        EINVAL, "neither functions to replace nor hooks to call", "look at the patch: it changes no code"
    ),
    "section-size": Rule(EINVAL, "a section of no whole number of entries", _VERSION),
    # prepare_payload: functions, hooks; arch_livepatch_verify_func, arch_livepatch_verify_distance
    "func-version": Rule(
        EOPNOTSUPP, "struct livepatch_func of another version", "use the livepatch-build-tools of this Xen"
    ),
    "func-old-size-zero": Rule(EINVAL, "a function to replace that has no size", "give the function its size (.size)"),
    "func-old-address": Rule(
        ENOENT,
        "the function to replace is not known",
        "build against this very hypervisor; for a function of a mangled payload: lpmangle --against IT PAYLOAD",
    ),
    "func-nop-size": Rule(
        EOPNOTSUPP, "more instructions to delete than Xen can keep (31 bytes)", "delete less at once"
    ),
    "func-nop-old-size": Rule(EINVAL, "more bytes to delete than the function has", "correct new_size or old_size"),
    "func-old-size": Rule(EINVAL, "the function to replace is too short for a jump", "patch its caller instead"),
    "func-distance": Rule(EOVERFLOW, "replacement and function are too far apart for a jump", _BUILD_AGAIN),
    "func-name-pointer": Rule(0, "the name of a function to replace points nowhere", _BUILD_AGAIN),
    "func-old-pointer": Rule(
        0, "the address of a function to replace points nowhere", "leave old_addr 0: Xen looks it up"
    ),
    "func-nop-endbr": Rule(0, "fewer than 4 bytes to delete where the code begins with ENDBR64", "delete 4 or more"),
    "section-not-loaded": Rule(
        0, "a section that Xen reads is not loaded (no SHF_ALLOC)", "set its flags to alloc,readonly"
    ),
    "hook-count": Rule(EINVAL, "exactly one hook of this kind can be", "call all of them from one function"),
    # prepare_payload: build-ids (version.c:xen_build_id_check), xen_build_id_dep, check_xen_buildid
    "note-format": Rule(EINVAL, "not a GNU build-id note", _NOTES),
    "build-id-loaded": Rule(EEXIST, "the same payload is loaded under another name", "unload that one first"),
    "xen-depends": Rule(
        EINVAL, "made for another hypervisor", "build it against the xen-syms of the hypervisor that runs"
    ),
    # prepare_payload: the rest
    "ex-table": Rule(EOPNOTSUPP, "an exception table, which Xen on Arm has not", "leave the construct out"),
    "alternatives": Rule(EOPNOTSUPP, "alternatives, which Xen on 32-bit Arm has not", "leave the construct out"),
    "alternatives-no-text": Rule(EINVAL, "alternatives, but no code", _AS_LINKED),
    "alternatives-no-replacement": Rule(EINVAL, "alternatives, but no .altinstr_replacement", _AS_LINKED),
    "alternatives-range": Rule(EINVAL, "an alternative for code outside the payload", _AS_LINKED),
    "alternatives-size": Rule(ENOSPC, "an alternative that is longer than what it replaces", _AS_LINKED),
    "alternatives-feature": Rule(ERANGE, "an alternative for a CPU feature that Xen does not know", _VERSION),
    "alternatives-bug": Rule(0, "an alternative that does not fit (BUG in apply_alternatives)", _AS_LINKED),
    "modinfo": Rule(EINVAL, ".modinfo does not end with a NUL", "end every string of .modinfo with a NUL"),
    "modinfo-empty": Rule(0, ".modinfo is empty: Xen reads the byte before it", "leave the section out"),
    # build_symbol_table
    "duplicate-symbol": Rule(
        EEXIST, "the name is taken", "make the names unique: lpmangle PAYLOAD (with --scope new for GLOBAL symbols)"
    ),
    # livepatch_action: what would happen next
    "apply-depends": Rule(EINVAL, "it stands on something else than what is applied", "build with the right --depends"),
    "replace-hooks": Rule(
        EOPNOTSUPP, "replace is not possible with vetoing hooks", "revert the applied ones, then apply"
    ),
    "expectation": Rule(EINVAL, "the code to replace is not what the payload expects", _VERSION),
    "expectation-size": Rule(ERANGE, "more code expected than the function has", _VERSION),
    # not checked: what would have to be known
    "no-hypervisor-table": Rule(
        0, "needs the hypervisor's symbol table", "say --xen xen-syms, or a copy of /proc/xen/xensyms"
    ),
    "no-hypervisor-build-id": Rule(0, "needs the hypervisor's build-id", "say --xen xen-syms"),
    "no-hypervisor-code": Rule(0, "needs the hypervisor's code", "say --xen xen-syms"),
    # beyond the loader
    "not-mangled": Rule(0, "will clash with the next payload made from the same sources", "lpmangle PAYLOAD"),
    "new-global": Rule(0, "will clash with the next cumulative payload", "lpmangle --scope new PAYLOAD"),
    "same-name": Rule(
        0, "Xen does not notice; a stacked payload gets the first", "lpmangle cannot tell them apart: rename one"
    ),
    "common-name": Rule(0, "a name that others are likely to use", "lpmangle --scope new PAYLOAD"),
    "long-name": Rule(0, "Xen keeps 126 bytes of a name", "lpmangle shortens such names in the middle"),
    "debug-size": Rule(0, "more than 2 MiB only because of debug information", "strip -g PAYLOAD (before lpmangle)"),
}


class Finding(NamedTuple):
    """One finding. `message` is the line that Xen prints, without `(XEN) ` before it; empty if it prints nothing.

    `detail` says in our words what it is about, `symbol` names the symbol that is to blame.
    """

    rule: str
    severity: str
    message: str = ""
    detail: str = ""
    symbol: str = ""
    error: int | None = None
    advice: str = ""

    @property
    def errno(self) -> int:
        return RULES[self.rule].errno if self.error is None else self.error

    @property
    def errno_name(self) -> str:
        # Xen returns EOPNOTSUPP, which Python on Linux calls ENOTSUP.
        return {EOPNOTSUPP: "EOPNOTSUPP", 0: ""}.get(self.errno) or ERRNO_NAMES.get(self.errno, str(self.errno))

    @property
    def meaning(self) -> str:
        return RULES[self.rule].meaning

    @property
    def remedy(self) -> str:
        return self.advice or RULES[self.rule].remedy

    @property
    def fatal(self) -> bool:
        return self.severity in (REFUSED, CRASH)


class Report:
    """The findings on one payload, in the order in which Xen would come upon them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.findings: list[Finding] = []
        self._counts: dict[str, int] = {}

    def add(self, finding: Finding) -> None:
        count = self._counts[finding.rule] = self._counts.get(finding.rule, 0) + 1
        if count <= MOST_PER_RULE and (not finding.fatal or finding not in self.findings):
            self.findings.append(finding)

    def refuse(
        self,
        rule: str,
        says: str = "",
        detail: str = "",
        symbol: str = "",
        *,
        error: int | None = None,
        advice: str = "",
        colon: str = ":",
    ) -> None:
        """Xen refuses, and says `says` after the payload's name; some messages have no colon there."""
        message = f"livepatch: {self.name}{colon} {says}" if says else ""
        self.add(Finding(rule, REFUSED, message, detail, symbol, error, advice))

    def crash(self, rule: str, detail: str) -> None:
        self.add(Finding(rule, CRASH, detail=detail))

    def not_checked(self, rule: str, detail: str) -> None:
        self.add(Finding(rule, NOT_CHECKED, detail=detail))

    def warn(self, rule: str, detail: str, symbol: str = "", advice: str = "") -> None:
        self.add(Finding(rule, WARNING, detail=detail, symbol=symbol, advice=advice))

    @property
    def fatal(self) -> Finding | None:
        """What Xen would report: the first refusal, or the crash that comes before."""
        return next((finding for finding in self.findings if finding.fatal), None)
