"""Verify OpenSSH signatures, as ``ssh-keygen -Y sign`` makes them (OpenSSH's PROTOCOL.sshsig).

In process, with the library that Prefect brings: a worker's image needs no OpenSSH, and
``ssh-keygen -Y verify`` does not ask whether a security key was touched, which an approval wants.
Tests hold this against ``ssh-keygen``, and what is exported is verified with it alone.
"""

import base64
import binascii
import hashlib
import re
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

NAMESPACE = "flywheel"
"""What signatures are for (``-n``); one that was made for git or for a file does not count."""

BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"

TOUCHED = 0x01
"""Flag of a security key's signature: somebody touched it (FIDO's user presence)."""

LEAST_RSA_BITS = 2048

_MAGIC = b"SSHSIG"
_CURVES: dict[str, tuple[ec.EllipticCurve, hashes.HashAlgorithm]] = {
    "nistp256": (ec.SECP256R1(), hashes.SHA256()),
    "nistp384": (ec.SECP384R1(), hashes.SHA384()),
    "nistp521": (ec.SECP521R1(), hashes.SHA512()),
}
_RSA: dict[str, hashes.HashAlgorithm] = {
    "rsa-sha2-256": hashes.SHA256(),
    "rsa-sha2-512": hashes.SHA512(),
}
SK_ED25519, SK_ECDSA = "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"
KEY_TYPES = (
    "ssh-ed25519",
    *(f"ecdsa-sha2-{curve}" for curve in _CURVES),
    "ssh-rsa",
    SK_ED25519,
    SK_ECDSA,
)


class SignatureError(ValueError):
    """A text that is no signature, or one that does not hold."""


class UntouchedError(SignatureError):
    """A security key signed without anybody touching it."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature as it was read: the key's type, and the key as base64, by which it is known."""

    key_type: str
    key: str
    namespace: str
    hash_name: str
    reserved: bytes
    blob: bytes


class _Reader:
    """Reads SSH's wire format; nothing may be left over."""

    def __init__(self, data: bytes) -> None:
        self.left = data

    def take(self, count: int) -> bytes:
        if len(self.left) < count:
            raise SignatureError("a signature or key ends too early")
        taken, self.left = self.left[:count], self.left[count:]
        return taken

    def number(self) -> int:
        (value,) = struct.unpack(">I", self.take(4))
        return int(value)

    def string(self) -> bytes:
        return self.take(self.number())

    def word(self) -> str:
        try:
            return self.string().decode("ascii")
        except UnicodeDecodeError as error:
            raise SignatureError("a signature or key has a name that is not ASCII") from error

    def positive(self) -> int:
        value = int.from_bytes(self.string(), "big", signed=True)
        if value <= 0:
            raise SignatureError("a signature or key has a number that is not positive")
        return value

    def end(self) -> None:
        if self.left:
            raise SignatureError(f"a signature or key has {len(self.left)} bytes too many")


@dataclass(frozen=True, slots=True)
class _Key:
    """A public key; ``application`` is a security key's, which is part of what it signs."""

    kind: str
    public: Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    hash: hashes.HashAlgorithm
    application: bytes | None = None


def key_type(key: str) -> str:
    """Return the type of a public key that is given as base64.

    Raises:
        SignatureError: It is no key, or of a type that is not taken.
    """
    return _read_key(_decoded(key)).kind


def canonical(key: str) -> str:
    """Write a key's base64 as everybody does, so that equal keys are equal texts."""
    return base64.b64encode(_decoded(key)).decode()


def read(armored: str) -> Signature:
    """Read what ``ssh-keygen -Y sign`` wrote.

    Raises:
        SignatureError: It is something else.
    """
    found = re.fullmatch(rf"\s*{BEGIN}([A-Za-z0-9+/=\s]+){END}\s*", armored)
    if found is None:
        raise SignatureError(f"a signature begins with {BEGIN} and ends with {END}")
    reader = _Reader(_decoded("".join(found[1].split())))
    if reader.take(len(_MAGIC)) != _MAGIC or reader.number() != 1:
        raise SignatureError("it is no SSH signature of version 1")
    key = reader.string()
    namespace, reserved, hash_name = reader.word(), reader.string(), reader.word()
    blob = reader.string()
    reader.end()
    kind, name = _read_key(key).kind, base64.b64encode(key).decode()
    return Signature(kind, name, namespace, hash_name, reserved, blob)


def verify(message: bytes, signature: Signature) -> None:
    """Check that the signature's own key made it over the message; whose key that is, is not asked.

    Raises:
        UntouchedError: A security key made it without being touched.
        SignatureError: It does not hold, or is for something else than Flywheel.
    """
    if signature.namespace != NAMESPACE:
        raise SignatureError(
            f"the signature is for {signature.namespace!r}, expected -n {NAMESPACE}"
        )
    if signature.hash_name not in ("sha256", "sha512"):
        raise SignatureError(f"the signature's hash is {signature.hash_name!r}")
    digest = hashlib.new(signature.hash_name, message).digest()
    parts = (NAMESPACE.encode(), signature.reserved, signature.hash_name.encode(), digest)
    signed = _MAGIC + b"".join(map(_string, parts))
    try:
        _verify(_decoded(signature.key), signature.blob, signed)
    except InvalidSignature as error:
        raise SignatureError("the signature does not hold: text or key is another one") from error


def _verify(key_blob: bytes, blob: bytes, signed: bytes) -> None:
    key, reader = _read_key(key_blob), _Reader(blob)
    algorithm, value = reader.word(), reader.string()
    flags = b""
    if key.application is not None:  # PROTOCOL.u2f: what a security key signs
        flags, counter = reader.take(1), reader.take(4)
        beginning = hashlib.sha256(key.application).digest() + flags + counter
        signed = beginning + hashlib.sha256(signed).digest()
    reader.end()
    if algorithm not in (_RSA if key.kind == "ssh-rsa" else (key.kind,)):
        raise SignatureError(f"a key of type {key.kind} signed as {algorithm!r}")
    if isinstance(key.public, rsa.RSAPublicKey):
        key.public.verify(value, signed, padding.PKCS1v15(), _RSA[algorithm])
    elif isinstance(key.public, Ed25519PublicKey):
        key.public.verify(value, signed)
    else:
        numbers = _Reader(value)
        encoded = encode_dss_signature(numbers.positive(), numbers.positive())
        numbers.end()
        key.public.verify(encoded, signed, ec.ECDSA(key.hash))
    if key.application is not None and not flags[0] & TOUCHED:
        raise UntouchedError("the security key was not touched when it signed")


def _read_key(blob: bytes) -> _Key:
    reader = _Reader(blob)
    kind = reader.word()
    is_hardware = kind in (SK_ED25519, SK_ECDSA)
    try:
        if kind in ("ssh-ed25519", SK_ED25519):
            public, hashed = Ed25519PublicKey.from_public_bytes(reader.string()), hashes.SHA512()
        elif kind.startswith(("ecdsa-sha2-", "sk-ecdsa-sha2-")) and kind in KEY_TYPES:
            curve, hashed = _CURVES[name := reader.word()]
            if name not in kind:
                raise SignatureError(f"a key of type {kind} is on the curve {name}")
            public = ec.EllipticCurvePublicKey.from_encoded_point(curve, reader.string())
        elif kind == "ssh-rsa":
            exponent, modulus = reader.positive(), reader.positive()
            public, hashed = rsa.RSAPublicNumbers(exponent, modulus).public_key(), hashes.SHA512()
            if public.key_size < LEAST_RSA_BITS:
                raise SignatureError(
                    f"an RSA key has {public.key_size} bits, expected {LEAST_RSA_BITS} or more"
                )
        else:
            raise SignatureError(f"a key is of type {kind!r}, expected {', '.join(KEY_TYPES)}")
    except (ValueError, KeyError) as error:
        if isinstance(error, SignatureError):
            raise
        raise SignatureError(f"a key of type {kind} is not one: {error}") from error
    application = reader.string() if is_hardware else None
    reader.end()
    return _Key(kind, public, hashed, application)


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise SignatureError("a signature or key is not base64") from error
