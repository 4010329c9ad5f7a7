"""Is a payload's signature valid for a public key, as a hypervisor that insists on signatures checks it?

That is RSA PKCS#1 v1.5 over the SHA-256 of the whole file with zeros for the signature (RFC 8017, 8.2.2). The key is a
PEM file. `cryptography` is loaded only here, and installed only with the extra `sign`.
"""

from typing import TYPE_CHECKING, NamedTuple

from lpmangle import elf
from lpmangle.errors import KeyFileError, MissingPackageError
from lpmangle.system import files
from lpmangle.system.files import sha256
from lpmangle.xen.abi import SIGNATURE_SECTION
from lpmangle.xen.signature import blanked, note_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

VALID, INVALID, ANOTHER_KEY, MALFORMED, NOT_SIGNED = "valid", "invalid", "another key", "malformed", "not signed"


class SignatureAnswer(NamedTuple):
    """One of the words above, and what it means in this case."""

    status: str
    words: str

    @property
    def valid(self) -> bool:
        return self.status == VALID


class SigningKey:
    """The public half of the key that payloads are signed with."""

    def __init__(self, path: str, key: "RSAPublicKey") -> None:
        self.path = path
        self._key = key

    @classmethod
    def read(cls, path: str) -> "SigningKey":
        """Raises FileError, KeyFileError if it is not a public RSA key, MissingPackageError without `cryptography`."""
        data = files.read(path).data
        try:
            from cryptography.exceptions import UnsupportedAlgorithm
            from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
            from cryptography.hazmat.primitives.serialization import load_pem_public_key
        except ImportError:
            raise MissingPackageError(
                "checking a signature needs the Python package cryptography, which is not installed",
                hint="install it with lpmangle: pip install 'lpmangle[sign]'",
            ) from None
        try:
            key = load_pem_public_key(data)
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, RSAPublicKey):
            raise KeyFileError(
                "is not a public RSA key in PEM form", path=path, hint="openssl pkey -in KEY.pem -pubout makes one"
            )
        return cls(path, key)

    def answer(self, data: bytes) -> SignatureAnswer:
        """Check the signature of a payload with this key. Raises ElfError for a file that is not a payload."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        view = elf.parse(data)
        note = note_of(view)
        if note is None:
            return SignatureAnswer(NOT_SIGNED, f"is not signed: it has no {SIGNATURE_SECTION}")
        if note.problem:
            return SignatureAnswer(MALFORMED, str(note))
        if note.blank:
            return SignatureAnswer(NOT_SIGNED, f"is not signed yet: its {SIGNATURE_SECTION} is blank")
        signature = data[note.offset : note.offset + note.size]
        try:
            digest = self._key.recover_data_from_signature(signature, PKCS1v15(), SHA256())
        except InvalidSignature:
            return SignatureAnswer(
                ANOTHER_KEY, f"its signature was made with another key than {self.path}, or is damaged"
            )
        if digest.hex() == sha256(blanked(view, note)):
            return SignatureAnswer(VALID, f"its signature is valid, made with the key {self.path}")
        return SignatureAnswer(INVALID, f"its signature is invalid: made with the key {self.path}, for other content")
