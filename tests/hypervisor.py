"""A small hypervisor for the tests of `check`, and a payload made for it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from lab.defects import LOCALS
from lab.editor import Editor
from livepatch import Source, cached_payload

from lpmangle.loader import Hypervisor, State, Upload, Verdict, check_upload
from lpmangle.xen.machines import X86_64
from lpmangle.xen.versions import Version, parse_version

BUILD_ID = b"\xaa" * 20
START = 0xFFFF82D040200000
SYMBOLS = {
    b"printk": START + 0x100,
    b"xen_extra_version": START + 0x200,
    b"xen_major_version": START + 0x300,
    b"domain_create": START + 0x400,
    b"common/version.c#build_id_p": START + 0x500,
    b"common/sched.c#lock": START + 0x600,
    b"__2M_rwdata_end": START + 0x1000,
}


class Small(Hypervisor):
    """4 KiB of code, ENDBR64 at 0x300, else NOPs; nothing else is known of it."""

    code = bytearray(b"\x90" * 0x1000)
    code[0x300:0x304] = b"\xf3\x0f\x1e\xfa"

    def __init__(self, more: dict[bytes, int] | None = None) -> None:
        super().__init__(SYMBOLS | (more or {}))
        self.build_id = BUILD_ID
        self.version = (4, 17, 7)
        self.machine = X86_64

    def read(self, address: int, size: int) -> bytes | None:
        start = address - START
        return bytes(self.code[start : start + size]) if 0 <= start < len(self.code) else b""


def state(version: str = "4.17.7") -> State:
    return State(Small(), parse_version(version))


def before(first: Version) -> Version:
    """The release before a first release."""
    major, minor, point = first
    return (major, minor, point - 1) if point else (major, minor - 1, 99)


def upload(data: bytes | bytearray, version: str = "4.17.7", name: str = "two") -> Verdict:
    return check_upload(Upload(name, bytes(data)), state(version))


def outcome(verdict: Verdict) -> tuple[int, str]:
    """errno and message, without the payload's name before it."""
    first = verdict.first
    if first is None:
        return 0, ""
    return first.errno, first.message.removeprefix("livepatch: two").removeprefix(":").strip()


@cache
def base() -> bytes:
    """The payload that tests/lab/defects.py is written for."""
    source = Source((Path(__file__).parent / "lab" / "payloads" / "upload.c").read_text(), file="upload.c")
    with TemporaryDirectory() as folder:
        path = cached_payload(Path(folder) / "upload", [source], depends=BUILD_ID, xen_depends=BUILD_ID)
        return path.read_bytes()


def payload(name: str, *, names: dict[str, str] | None = None, depends: bytes = BUILD_ID) -> Upload:
    """The base with a build-id made from its name; its new symbols are unique, except `names`."""
    editor = Editor(base()).build_id(name.encode().ljust(20, b"\0")[:20]).build_id(depends, ".livepatch.depends")
    for local in LOCALS:
        editor.rename(local, (names or {}).get(local, f"{local}_{name}"))
    return Upload(name, bytes(editor.data))


def identity(name: str) -> bytes:
    return name.encode().ljust(20, b"\0")
