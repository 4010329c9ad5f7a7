"""What Xen will answer to uploads, from files to verdicts."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from lpmangle import elf
from lpmangle.errors import LpmangleError, PayloadError, about
from lpmangle.loader import Hypervisor, Loaded, State, Upload, Verdict, check_sequence, take
from lpmangle.loader.fleet import Matrix, Row, read_hosts
from lpmangle.mangle.mark import MAGIC, Mark, globs_text
from lpmangle.manifest.embed import may_have_manifest
from lpmangle.system import files
from lpmangle.xen.signature import signed
from lpmangle.xen.versions import parse_version

if TYPE_CHECKING:
    from lpmangle.verify.signing_key import SignatureAnswer, SigningKey


def check_files(
    payloads: Sequence[str],
    *,
    xen: str | None = None,
    xen_version: str | None = None,
    vendor: str | None = None,
    loaded: Sequence[str] = (),
) -> list[Verdict]:
    """Simulate the upload of the payloads at these paths, in that order, each followed by apply or replace.

    `xen` is the path of the hypervisor's xen-syms or of a copy of /proc/xen/xensyms, `loaded` are payloads that are
    applied already. `xen_version` and `vendor` say which rules apply, as on the command line. Returns one verdict for
    each, in that order. Raises LpmangleError for what cannot be read; a payload that Xen refuses is an answer
    (`status`, `findings`), no error.
    """
    state = state_of(xen, xen_version, vendor)
    uploads = read_uploads(payloads)
    put_on(state, loaded)
    return check_sequence(uploads, state)


def state_of(xen: str | None, xen_version: str | None = None, vendor: str | None = None) -> State:
    """A hypervisor with nothing loaded. Raises FileError, ElfError, NamingError."""
    version = parse_version(xen_version) if xen_version else None
    return State(Hypervisor.at(xen) if xen else None, version, vendor=vendor or "")


def read_uploads(paths: Iterable[str]) -> list[Upload]:
    """Raises FileError."""
    return [_upload(path) for path in paths]


def _upload(path: str) -> Upload:
    data = files.read(path).data
    upload = Upload.at(path, data)
    if MAGIC not in data and may_have_manifest(path, data):
        with suppress(LpmangleError):  # the loader will say what is wrong with the payload
            upload.mark = _mark_of(path, data)
    return upload


def _mark_of(path: str, data: bytes) -> Mark | None:
    """How a payload that has lost its mark was mangled, according to the manifest inside or beside it."""
    from lpmangle.manifest.belongs import has_names  # these load msgspec
    from lpmangle.store import local

    found = local.inside(data, path) or local.beside(path, data)
    if found is None or not has_names(elf.parse(data), found.manifest):
        return None
    asked = found.manifest.options
    return Mark(found.manifest.suffix, asked.suffix, asked.template, asked.scope, globs_text(asked.only, asked.keep))


def signatures(uploads: Sequence[Upload], key: str | None) -> "list[str | SignatureAnswer]":
    """The signature of each payload in words, empty if there is none; with the path of a key, the key's answer."""
    if key is None:
        return [_signed(upload.data) for upload in uploads]
    from lpmangle.verify.signing_key import SigningKey  # loads cryptography

    public = SigningKey.read(key)
    return [_answer(public, upload.data) for upload in uploads]


def _signed(data: bytes) -> str:
    with suppress(LpmangleError):
        return signed(elf.parse(data)).words("is appended", "are appended")
    return ""


def _answer(key: "SigningKey", data: bytes) -> "SignatureAnswer":
    try:
        return key.answer(data)
    except LpmangleError as error:
        from lpmangle.verify.signing_key import MALFORMED, SignatureAnswer

        return SignatureAnswer(MALFORMED, error.message)


def put_on(state: State, paths: Iterable[str]) -> None:
    """Put payloads into `state` as loaded and applied, in that order. Raises LpmangleError."""
    for path in paths:
        with about(path):
            payload = take(Upload.at(path, files.read(path).data), state)
        state.loaded.append(payload)
        state.applied.append(payload)


def check_stacks(path: str, uploads: list[Upload], state: State) -> list[Row]:
    """Simulate `uploads`, in that order, on every host in the stack file at `path`. Raises LpmangleError."""
    with about(path):
        try:
            text = files.read(path).data.decode()
        except UnicodeDecodeError:
            raise PayloadError("is not text") from None
        hosts = read_hosts(text, os.path.dirname(path))
    matrix = Matrix(uploads, state)
    deployed: dict[str, Loaded] = {}
    for file in dict.fromkeys(file for host in hosts for file in host.paths):
        with about(file):
            deployed[file] = take(Upload.at(file, files.read(file).data), matrix.state)
    return [Row(host, matrix.check([deployed[file] for file in host.paths])) for host in hosts]
