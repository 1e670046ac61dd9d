"""Sign a folder's files in the format of OpenSSF model signing, or a text, and verify both."""

import base64
import binascii
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

SIGNATURE = "model.sig"  # the file in a signed folder that holds the statement and its signature

IGNORED = (SIGNATURE, "registered_model_meta")
"""Files that are not signed: the signature, and the file that MLflow writes into each download."""

PRIVATE, PUBLIC = "signing.key", "signing.pub"


class ModelSignatureError(ValueError):
    """Raised when a folder changed after it was signed, or was signed with another key."""


class UnsignedError(ModelSignatureError):
    """Raised when a folder has no signature."""


def make_key(folder: Path) -> Path:
    """Return an installation's private key (ECDSA P-256, mode 0600), made at the first use.

    Its public key is in the same folder. If several processes make a key at once, the first wins.
    """
    private, public = folder / PRIVATE, folder / PUBLIC
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not private.exists():
        _write_once(
            private,
            ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
    if not public.exists():
        key = serialization.load_pem_private_key(private.read_bytes(), None).public_key()
        pem = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        _write_once(public, key.public_bytes(*pem), mode=0o644)
    return private


def signature_path(folder: Path) -> Path:
    """Return the path of a detached signature, for a folder that may hold only signed files."""
    return folder.with_name(f"{folder.name}.sig")


def sign(folder: Path, private: Path, signature: Path | None = None) -> None:
    """Sign every file of a folder; the signature goes into the folder by default."""
    # Imported late: the library loads Sigstore's clients in half a second.
    from model_signing import hashing, signing

    files = hashing.Config().set_ignored_paths(paths=IGNORED, ignore_git_paths=False)
    signer = signing.Config().use_elliptic_key_signer(private_key=private)
    signer.set_hashing_config(files).sign(folder, signature or folder / SIGNATURE)


def verify(
    folder: Path, public: Path, signature: Path | None = None, *, leaving_out: Sequence[str] = ()
) -> None:
    """Verify that every file of a folder is as it was signed with ``public``'s private key.

    ``leaving_out`` names files of the folder that may be there unsigned.

    Raises:
        UnsignedError: There is no signature.
        ModelSignatureError: A file was changed, added or removed, or another key signed it.
    """
    from model_signing import hashing, verifying

    path = signature or folder / SIGNATURE
    if not path.is_file():
        raise UnsignedError(f"verifying {folder}: there is no {path.name}, so it is not signed")
    unsigned = [*IGNORED, *leaving_out]
    files = hashing.Config().set_ignored_paths(paths=unsigned, ignore_git_paths=False)
    try:
        _require_canonical(path.read_text())
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=public)
        verifier.set_hashing_config(files).verify(folder, path)
    except InvalidSignature as error:
        raise ModelSignatureError(
            f"verifying {folder}: the signature in {path.name} is not by the key {public}"
        ) from error
    except (ValueError, KeyError, IndexError, TypeError, binascii.Error) as error:
        raise ModelSignatureError(f"verifying {folder}: {error}") from error


def _require_canonical(text: str) -> None:
    """Reject a signature file with the same content in other bytes than the library writes."""
    bundle = json.loads(text)
    envelope = bundle["dsseEnvelope"]
    (signed,) = envelope["signatures"]
    canonical = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {
            "publicKey": {"hint": bundle["verificationMaterial"]["publicKey"]["hint"]},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": _canonical_base64(envelope["payload"]),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": _canonical_base64(signed["sig"]), "keyid": ""}],
        },
    }
    if json.dumps(canonical, separators=(",", ":")) != text:
        raise ValueError(f"{SIGNATURE} differs from what the library model-signing writes")


def _canonical_base64(text: str) -> str:
    return base64.b64encode(base64.b64decode(text, validate=True)).decode()


def _write_once(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file atomically, unless it exists."""
    handle, partial = tempfile.mkstemp(dir=path.parent)  # mode 0600
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(partial).chmod(mode)
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        pass
    finally:
        Path(partial).unlink()
