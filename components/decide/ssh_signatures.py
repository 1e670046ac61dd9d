"""Verify OpenSSH signatures (PROTOCOL.sshsig) against ``allowed_signers`` files."""

import base64
import binascii
import hashlib
import re
import shlex
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import translate

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

NAMESPACE = "flywheel"
"""The namespace of signatures (``-n``); those for git or for files do not count."""

BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"

TOUCHED = 0x01  # flag of a security key's signature: the key was touched (FIDO's user presence)

LEAST_RSA_BITS = 2048

_MAGIC = b"SSHSIG"
_HASHES: dict[int, hashes.HashAlgorithm] = {
    256: hashes.SHA256(),
    384: hashes.SHA384(),
    521: hashes.SHA512(),
}
_RSA: dict[str, hashes.HashAlgorithm] = {
    "rsa-sha2-256": hashes.SHA256(),
    "rsa-sha2-512": hashes.SHA512(),
}
SK_ED25519, SK_ECDSA = "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"
KEY_TYPES = (
    "ssh-ed25519",
    *(f"ecdsa-sha2-nistp{bits}" for bits in _HASHES),
    "ssh-rsa",
    SK_ED25519,
    SK_ECDSA,
)


class SignatureError(ValueError):
    """A text is not a signature, or the signature is invalid."""


class UntouchedError(SignatureError):
    """A security key signed without being touched."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A parsed signature; ``key`` is base64."""

    key_type: str
    key: str
    namespace: str
    hash_name: str
    reserved: bytes
    blob: bytes


class _BlobReader:
    """Reads SSH's wire format; ``end`` checks that nothing is left."""

    def __init__(self, data: bytes) -> None:
        self.left = data

    def take(self, count: int) -> bytes:
        if len(self.left) < count:
            raise SignatureError("a signature or key ends too early")
        head, self.left = self.left[:count], self.left[count:]
        return head

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
    """A public key; ``application`` is part of the data that a security key signs."""

    kind: str
    public: Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    application: bytes | None = None


def key_type(key: str) -> str:
    """Return the type of a public key in base64; raise ``SignatureError`` if unsupported."""
    return _read_key(_decoded(key)).kind


def _canonical_key(key: str) -> str:
    return base64.b64encode(_decoded(key)).decode()


def read_signature(armored: str) -> Signature:
    """Parse the output of ``ssh-keygen -Y sign``.

    Raises:
        SignatureError: It is not a signature.
    """
    match = re.fullmatch(rf"\s*{BEGIN}([A-Za-z0-9+/=\s]+){END}\s*", armored)
    if match is None:
        raise SignatureError(f"a signature begins with {BEGIN} and ends with {END}")
    reader = _BlobReader(_decoded("".join(match[1].split())))
    if reader.take(len(_MAGIC)) != _MAGIC or reader.number() != 1:
        raise SignatureError("it is not an SSH signature of version 1")
    key = reader.string()
    namespace, reserved, hash_name = reader.word(), reader.string(), reader.word()
    blob = reader.string()
    reader.end()
    kind, name = _read_key(key).kind, base64.b64encode(key).decode()
    return Signature(kind, name, namespace, hash_name, reserved, blob)


def verify_signature(message: bytes, signature: Signature) -> None:
    """Check that the signature's own key signed the message; the key's owner is not checked.

    Raises:
        UntouchedError: A security key signed without being touched.
        SignatureError: It is invalid, or not for Flywheel's namespace.
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
        _verify_blob(_decoded(signature.key), signature.blob, signed)
    except InvalidSignature as error:
        raise SignatureError("the signature does not hold: text or key differ") from error


def _verify_blob(key_blob: bytes, blob: bytes, signed: bytes) -> None:
    key, reader = _read_key(key_blob), _BlobReader(blob)
    algorithm, value = reader.word(), reader.string()
    flags = b""
    if key.application is not None:  # PROTOCOL.u2f: the data that a security key signs
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
        numbers = _BlobReader(value)
        encoded = encode_dss_signature(numbers.positive(), numbers.positive())
        numbers.end()
        key.public.verify(encoded, signed, ec.ECDSA(_HASHES[key.public.key_size]))
    if key.application is not None and not flags[0] & TOUCHED:
        raise UntouchedError("the security key was not touched when it signed")


def _read_key(blob: bytes) -> _Key:
    reader = _BlobReader(blob)
    kind = reader.word()
    if kind not in KEY_TYPES:
        raise SignatureError(f"a key is of type {kind!r}, expected {', '.join(KEY_TYPES)}")
    try:
        public = load_ssh_public_key(f"{kind} {base64.b64encode(blob).decode()}".encode())
    except ValueError as error:
        raise SignatureError(f"a key of type {kind} is invalid: {error}") from error
    assert isinstance(public, Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < LEAST_RSA_BITS:
        raise SignatureError(
            f"an RSA key has {public.key_size} bits, expected {LEAST_RSA_BITS} or more"
        )
    application = None
    while kind in (SK_ED25519, SK_ECDSA) and reader.left:
        application = reader.string()  # the last string
    return _Key(kind, public, application)


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise SignatureError("a signature or key is not base64") from error


_OPTION = re.compile(r'([a-z-]+)(?:=("[^"]*"|[^",]*))?(?:,|$)')


@dataclass(frozen=True, slots=True)
class Signer:
    """A public key (base64), and its period of validity (UTC)."""

    key: str
    valid_after: datetime | None = None
    valid_before: datetime | None = None

    def is_valid(self, at: datetime) -> bool:
        """Return whether the key is valid at a time, both ends included."""
        after, before = self.valid_after, self.valid_before
        return (after is None or at >= after) and (before is None or at <= before)


@dataclass(frozen=True, slots=True)
class SignerLine:
    """A line: patterns of names, and a key that is valid for them."""

    principals: tuple[str, ...]
    signer: Signer

    def is_of(self, name: str) -> bool:
        """Return whether the key is a person's; a pattern with ``!`` excludes its matches."""
        matches = [p for p in self.principals if _matches(p.removeprefix("!"), name)]
        return bool(matches) and not any(pattern.startswith("!") for pattern in matches)


def parse(text: str) -> list[SignerLine]:
    """Parse the lines for Flywheel's namespace; others are skipped.

    Raises:
        ValueError: A line is invalid, or is of a certificate authority, which is not supported.
    """
    numbered = enumerate(map(str.strip, text.splitlines()), 1)
    entries = [(n, entry) for n, entry in numbered if entry and entry[0] != "#"]
    return [line for n, entry in entries for line in _line(n, entry)]


def public_key(text: str) -> Signer:
    """Parse the line of a ``.pub`` file: type, base64, and an optional comment.

    Raises:
        ValueError: It is not a public key.
    """
    words = text.split()
    if len(words) < 2:
        raise ValueError(f"{text!r} is not a public key, expected the line of a .pub file")
    return _signer(words[0], words[1], {})


def write_line(name: str, signer: Signer) -> str:
    """Return the line of a person's key for ``ssh-keygen -Y verify``."""
    options = [f'namespaces="{NAMESPACE}"']
    times = {"valid-after": signer.valid_after, "valid-before": signer.valid_before}
    for option, time in times.items():
        if time is not None:
            options.append(f'{option}="{time.astimezone(UTC):%Y%m%d%H%M%SZ}"')
    kind = key_type(signer.key)
    return f'"{name}" {",".join(options)} {kind} {signer.key}\n'


def _line(number: int, text: str) -> Iterable[SignerLine]:
    try:
        principals, rest = _first_word(text)
        options: dict[str, str] = {}
        if rest.split(maxsplit=1)[0] not in KEY_TYPES:
            words, rest = _first_word(rest, keep_quotes=True)
            options = _options(words)
        kind, key = rest.split()[:2]
        signer = _signer(kind, key, options)
    except (ValueError, IndexError) as error:
        raise ValueError(f"allowed_signers, line {number}: {error}") from error
    namespaces = options.get("namespaces")
    if namespaces is None or any(_matches(pattern, NAMESPACE) for pattern in namespaces.split(",")):
        yield SignerLine(tuple(principals.split(",")), signer)


def _first_word(text: str, *, keep_quotes: bool = False) -> tuple[str, str]:
    """Split off the first word, which may have quoted blanks."""
    match = re.match(r'((?:"[^"]*"|[^"\s])+)\s+(.+)', text)
    if match is None:
        raise ValueError("expected names, options if any, the type of a key, and the key")
    return match[1] if keep_quotes else "".join(shlex.split(match[1], posix=True)), match[2]


def _options(text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    place = 0
    while place < len(text):
        match = _OPTION.match(text, place)
        if match is None or match[1] not in (
            "cert-authority",
            "namespaces",
            "valid-after",
            "valid-before",
        ):
            raise ValueError(f"{text[place:]!r} is not an option")
        if match[1] == "cert-authority":
            raise ValueError("certificate authorities are not supported, list the people's keys")
        options[match[1]] = (match[2] or "").strip('"')
        place = match.end()
    return options


def _signer(kind: str, key: str, options: dict[str, str]) -> Signer:
    try:
        actual = key_type(key)
    except SignatureError as error:
        raise ValueError(f"{kind} {key[:20]}...: {error}") from error
    if actual != kind:
        raise ValueError(f"a key has the type {actual}, and its line says {kind}")
    after, before = (_time(options.get(name)) for name in ("valid-after", "valid-before"))
    return Signer(_canonical_key(key), after, before)


def _time(text: str | None) -> datetime | None:
    """Parse ``YYYYMMDD[HHMM[SS]][Z]``; local time without a Z."""
    if text is None:
        return None
    digits, zone = text.removesuffix("Z"), UTC if text.endswith("Z") else None
    for form, length in (("%Y%m%d", 8), ("%Y%m%d%H%M", 12), ("%Y%m%d%H%M%S", 14)):
        if len(digits) == length and digits.isascii() and digits.isdigit():
            time = datetime.strptime(digits, form)
            return time.replace(tzinfo=zone) if zone else time.astimezone()
    raise ValueError(f"{text!r} is not a time, expected YYYYMMDD[HHMM[SS]][Z]")


def _matches(pattern: str, text: str) -> bool:
    # As OpenSSH: `*` and `?` are wildcards, brackets are not.
    escaped = pattern.replace("[", "[[]")
    return re.fullmatch(translate(escaped), text) is not None
