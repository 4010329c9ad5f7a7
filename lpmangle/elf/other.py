"""Files that were given by mistake: what they are, judging from their first bytes and their sections."""

from lpmangle.elf.view import ET_CORE, ET_DYN, ET_EXEC, Object

# What a file begins with, at an offset.
_MAGICS = (
    (0, b"!<arch>\n", "an archive (ar)"),
    (0, b"!<thin>\n", "an archive (ar)"),
    (257, b"ustar", "an archive (tar)"),
    (0, b"PK\x03\x04", "an archive (zip)"),
    (0, b"\xed\xab\xee\xdb", "an RPM package"),
    (0, b"\x1f\x8b", "compressed (gzip)"),
    (0, b"\xfd7zXZ\0", "compressed (xz)"),
    (0, b"\x28\xb5\x2f\xfd", "compressed (zstd)"),
)
ONLY = "lpmangle is only for livepatch payloads of Xen"


def not_elf(data: bytes) -> str:
    """What a file without ELF's magic number is."""
    for offset, magic, what in _MAGICS:
        if data[offset : offset + len(magic)] == magic:
            return f"is {what}; {ONLY}"
    return "not an ELF file"


def not_relocatable(view: Object, e_type: int) -> str:
    """What an ELF file of another type than ET_REL is; its sections are known if they could be read."""
    names = {section.name for section in view.sections}
    if e_type == ET_EXEC:
        what = "the Linux kernel (vmlinux)" if "__ksymtab_strings" in names else "an executable"
    elif e_type == ET_DYN:
        what = "an executable" if ".interp" in names else "a shared library"
    else:
        what = "a core dump" if e_type == ET_CORE else f"of ELF type {e_type}"
    return f"is {what}; {ONLY}"


def linux_module(view: Object) -> str:
    """What a module of the Linux kernel is; empty for any other file."""
    section = view.section_named(".modinfo")
    if section is None or view.section_named(".gnu.linkonce.this_module") is None:
        return ""
    # Documentation/livepatch/module-elf-format.rst
    is_livepatch = any(one.name.startswith(".klp.") for one in view.sections)
    is_livepatch = is_livepatch or b"livepatch=Y" in bytes(view.section_data(section)).split(b"\0")
    return f"is a {'livepatch ' if is_livepatch else ''}module of the Linux kernel; {ONLY}"
