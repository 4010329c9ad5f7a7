"""What follows the last section of a file: nothing, padding, or something appended, such as a signature.

Every byte of an ELF file that means anything is in the header, in the section header table or in a section. Bytes after
the last of them are padding if they are zero, as many as there are. Any other byte was put there by someone who reads
the file from its end, as signers do: the file was changed last by them, and not by a linker, objcopy or strip.
What lpmangle appends is a section's data, and so no tail.
"""

from lpmangle import elf
from lpmangle.errors import counted

# scripts/sign-file.c of Linux; taken over by others
MODULE_SIGNATURE = b"~Module signature appended~\n"


def size(view: elf.Object) -> int:
    """The number of bytes that were appended to the file, padding before them included; 0 if there are none."""
    end = max(
        view.section_header_offset(len(view.sections)),
        *(section.end for section in view.sections[1:]),
    )
    appended = len(view.data) - end
    return 0 if view.data.count(0, end) == appended else appended


def describe(data: bytes, appended: int, one: str, several: str) -> str:
    """So many bytes in words; `one` and `several` say what they do: "was appended", "were appended"."""
    if data.endswith(MODULE_SIGNATURE):
        return counted(appended, f"byte of a signature {one}", f"bytes of a signature {several}")
    what = "to no section (a signature?)"
    return counted(appended, f"byte that belongs {what} {one}", f"bytes that belong {what} {several}")
