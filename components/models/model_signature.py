"""Sign a folder's files in the format of OpenSSF model signing, and verify the signature."""

import base64
import binascii
import json
import os
import tempfile
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

SIGNATURE = "model.sig"
"""The file in a signed folder that holds the statement and its signature."""

IGNORED = (SIGNATURE, "registered_model_meta")
"""What the statement leaves out: itself, and the note that MLflow writes into each download."""

PRIVATE, PUBLIC = "signing.key", "signing.pub"


class ModelSignatureError(ValueError):
    """A folder is not as it was signed, or was signed with another key."""


class UnsignedError(ModelSignatureError):
    """A folder has no signature."""


def make_key(folder: Path) -> Path:
    """Return an installation's private key (ECDSA P-256, mode 0600), made at the first use.

    Its public key lies beside it. Of several processes that make one at once, the first one's
    stays.
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
    """Return where the signature of a folder lies that may hold nothing but what was signed."""
    return folder.with_name(f"{folder.name}.sig")


def sign(folder: Path, private: Path, signature: Path | None = None) -> None:
    """Write a signed statement over every file of a folder, by default into it."""
    # The library loads Sigstore's clients: half a second that only these two functions need.
    from model_signing import hashing, signing

    files = hashing.Config().set_ignored_paths(paths=IGNORED, ignore_git_paths=False)
    signer = signing.Config().use_elliptic_key_signer(private_key=private)
    signer.set_hashing_config(files).sign(folder, signature or folder / SIGNATURE)


def verify(folder: Path, public: Path, signature: Path | None = None) -> None:
    """Refuse a folder that is not, file by file and byte by byte, as it was signed.

    Args:
        folder: What was signed.
        public: The public key of who must have signed it.
        signature: Where the signature is, if it is not in the folder.

    Raises:
        UnsignedError: There is no signature.
        SignatureError: A file was changed, added or removed, or another key has signed.
    """
    from model_signing import hashing, verifying

    path = signature or folder / SIGNATURE
    if not path.is_file():
        raise UnsignedError(f"verifying {folder}: there is no {path.name}, so nobody has signed it")
    files = hashing.Config().set_ignored_paths(paths=IGNORED, ignore_git_paths=False)
    try:
        _require_plain(path.read_text())
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=public)
        verifier.set_hashing_config(files).verify(folder, path)
    except InvalidSignature as error:
        raise ModelSignatureError(
            f"verifying {folder}: the signature in {path.name} is not by the key {public}"
        ) from error
    except (ValueError, KeyError, IndexError, TypeError, binascii.Error) as error:
        raise ModelSignatureError(f"verifying {folder}: {error}") from error


def _require_plain(text: str) -> None:
    """Refuse a signature file that says the same in other bytes than the library writes."""
    found = json.loads(text)
    envelope = found["dsseEnvelope"]
    (signed,) = envelope["signatures"]
    plain = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {
            "publicKey": {"hint": found["verificationMaterial"]["publicKey"]["hint"]},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": _normal_json(envelope["payload"]),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": _normal_json(signed["sig"]), "keyid": ""}],
        },
    }
    if json.dumps(plain, separators=(",", ":")) != text:
        raise ValueError(f"{SIGNATURE} is not written as the library model-signing writes it")


def _normal_json(text: str) -> str:
    return base64.b64encode(base64.b64decode(text, validate=True)).decode()


def _write_once(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file in one step, unless another process was first."""
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
