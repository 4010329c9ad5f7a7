"""What follows the last section of a file: nothing, padding, or something appended, such as a signature.

Every meaningful byte of an ELF file is in the header, in the section header table or in a section. Bytes after the last
of them are padding if all of them are zero. Otherwise they were appended by a tool that reads the file from its end, as
signers do, and that tool, not a linker, objcopy or strip, was the last to change the file. What lpmangle appends is the
data of a section, and does not count here.
"""

from lpmangle import elf
from lpmangle.errors import counted

# scripts/sign-file.c of Linux; others use it, too
MODULE_SIGNATURE = b"~Module signature appended~\n"


def size(view: elf.Object) -> int:
    """The number of bytes that were appended to the file, including padding before them; 0 if there are none."""
    end = max(
        view.section_header_offset(len(view.sections)),
        *(section.end for section in view.sections[1:]),
    )
    appended = len(view.data) - end
    return 0 if view.data.count(0, end) == appended else appended


def describe(data: bytes, appended: int, one: str, several: str) -> str:
    """The appended bytes in words; `one` and `several` are the verb: "was appended", "were appended"."""
    if data.endswith(MODULE_SIGNATURE):
        return counted(appended, f"byte of a signature {one}", f"bytes of a signature {several}")
    what = "to no section (a signature?)"
    return counted(appended, f"byte that belongs {what} {one}", f"bytes that belong {what} {several}")
