"""Is a payload signed, and how: the note that a hypervisor checks, and what a signer has appended to the file.

The note is the one that vendors use and that was posted to xen-devel in 2025; upstream's loader does not read it. It is
alone in its section, and named `Xen`. Its type says how it was made: version in bits 0 to 15, algorithm in 16 to 23,
hash in 24 to 31; its descriptor is the signature. In a vendor's older form the type is 0, and the descriptor begins
with u16 version, u8 algorithm, u8 hash, u32 length. A note of zeros is space for a signature that has not
been made: the signature is made over the whole file in this state.
"""

from struct import Struct, error

from lpmangle import elf
from lpmangle.elf import appended
from lpmangle.errors import PayloadError, counted
from lpmangle.system.records import NamedTuple
from lpmangle.xen.abi import SIGNATURE_SECTION
from lpmangle.xen.notes import HEADER_SIZE

NAME = b"Xen\0"
VERSION = 1
ALGORITHM_RSA, HASH_SHA256 = 0, 0
ALGORITHMS = {ALGORITHM_RSA: "RSA"}
HASHES = {HASH_SHA256: "SHA-256"}
LIMIT = 1024  # a signature has fewer bytes

_NAME_AT = HEADER_SIZE
_DESCRIPTOR_AT = _NAME_AT + len(NAME)
_HINT = "mangle first, then sign the result; --force mangles it nevertheless, and its signature is then no longer valid"


class Note(NamedTuple):
    """The note; the signature's `size` bytes are at `offset` in the file. `blank`: nothing has been signed yet.

    `problem` is what is wrong with it, empty if nothing is. If it is not empty, the other fields have what could be
    read.
    """

    problem: str = ""
    blank: bool = False
    older: bool = False
    version: int = VERSION
    algorithm: int = ALGORITHM_RSA
    hash: int = HASH_SHA256
    offset: int = 0
    size: int = 0

    def __str__(self) -> str:
        if self.problem:
            return f"{SIGNATURE_SECTION}, malformed: {self.problem}"
        older = ", older form" if self.older else ""
        return f"{SIGNATURE_SECTION}, {ALGORITHMS[self.algorithm]}, {HASHES[self.hash]}{older}"


def note_of(view: elf.Object) -> Note | None:
    """The note of a payload; None if there is none. Invalid content is not an error."""
    several = [section for section in view.sections if section.name == SIGNATURE_SECTION]
    if not several:
        return None
    blank = not any(view.data.count(0, s.offset, s.end) < s.end - s.offset for s in several)
    if len(several) > 1:
        return Note(f"there are {counted(len(several), 'section')} of that name", blank)
    try:
        return _read(view, several[0])
    except error:  # of struct
        return Note("it is cut short", blank)


def _read(view: elf.Object, section: elf.Section) -> Note:
    word, data, end = view.layout.word, view.data, section.end
    if end - section.offset < _DESCRIPTOR_AT:
        return Note("it is cut short", not any(view.section_data(section)))
    name_size, size, kind = (word.unpack_from(data, section.offset + at)[0] for at in (0, 4, 8))
    at = section.offset + _DESCRIPTOR_AT
    descriptor = data[at : min(at + size, end)]
    blank = not any(descriptor)
    if name_size != len(NAME) or data[section.offset + _NAME_AT : at] != NAME:
        return Note("it is not called Xen", blank)
    if at + size > end:
        return Note("it is cut short", blank)
    # gABI, note section: descriptors are padded to whole words; the last padding may be missing.
    if any(data[at + size : end]) or end - at - size >= _NAME_AT:
        return Note("there are two notes, or bytes after the first", blank and not any(data[at + size : end]))
    if kind:
        version, algorithm, digest = kind & 0xFFFF, kind >> 16 & 0xFF, kind >> 24
    else:
        head = Struct(">HBBI" if view.layout.big_endian else "<HBBI")
        version, algorithm, digest, length = head.unpack_from(descriptor)
        at, size = at + head.size, size - head.size
        blank = not any(descriptor[head.size :])
        if not any(descriptor):  # nothing has been filled in yet
            version, length = VERSION, size
        # There may be padding after the signature.
        if length > size or any(descriptor[head.size + length :]):
            return Note(f"it says {counted(length, 'byte')} where it has {size}", blank)
        size = length
    return Note(_problem(version, algorithm, digest, size), blank, not kind, version, algorithm, digest, at, size)


def _problem(version: int, algorithm: int, digest: int, size: int) -> str:
    if version != VERSION:
        return f"version {version} is not known, only {VERSION}"
    if algorithm not in ALGORITHMS:
        return f"algorithm {algorithm} is not known, only {ALGORITHM_RSA} (RSA)"
    if digest not in HASHES:
        return f"hash {digest} is not known, only {HASH_SHA256} (SHA-256)"
    if not size:
        return "its signature has 0 bytes"
    if size >= LIMIT:
        return f"its signature has {counted(size, 'byte')}, {LIMIT} or more"
    return ""


class Signed(NamedTuple):
    """How a payload is signed: by a note that is not blank, by bytes appended to the file, both, or not at all."""

    note: Note | None
    appended: int
    data: bytes

    def __bool__(self) -> bool:
        return self.note is not None or self.appended > 0

    def words(self, one: str, several: str) -> str:
        """How, in words, empty if not at all; `one` and `several` are for `appended.describe`."""
        words = [str(self.note)] if self.note else []
        if self.appended:
            words.append(appended.describe(self.data, self.appended, one, several))
        return ", ".join(words)

    def refusal(self) -> PayloadError:
        """The error for a payload that would be changed."""
        if self.note:
            return PayloadError(f"is signed ({self.note})", hint=_HINT)
        words = appended.describe(self.data, self.appended, "follows its last section", "follow its last section")
        return PayloadError(words, hint=_HINT)

    def broken(self) -> list[str]:
        """What to say of each signature if the payload was changed nevertheless."""
        lines = [f"its signature ({self.note}) stays as it was, and is no longer valid"] if self.note else []
        if self.appended:
            words = appended.describe(self.data, self.appended, "stays as it was", "stay as they were")
            lines.append(f"{words}; the signature is no longer valid")
        return lines

    def dropped(self) -> list[str]:
        """The same if the payload was made again from its state before signing."""
        lines = [f"its signature ({self.note}) is gone: sign it again"] if self.note else []
        if self.appended:
            words = appended.describe(self.data, self.appended, "is gone", "are gone")
            lines.append(f"{words}: sign it again")
        return lines


def signed(view: elf.Object) -> Signed:
    """Is this payload signed, and how? A blank note is not a signature."""
    note = note_of(view)
    return Signed(note if note and not note.blank else None, appended.size(view), view.data)


def blanked(view: elf.Object, note: Note) -> bytes:
    """The file as it was when it was signed: with zeros for the signature."""
    return view.data[: note.offset] + bytes(note.size) + view.data[note.offset + note.size :]
