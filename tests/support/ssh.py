"""SSH keys for tests: real ones of ``ssh-keygen``, and a security key in software."""

import base64
import hashlib
import re
import shlex
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
POINT = (serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def keygen(folder: Path, name: str = "ada", kind: str = "ed25519", bits: int | None = None) -> Path:
    """Make a key without a passphrase, as people do; give the private key's file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-{kind}{bits or ''}"
    size = ["-b", str(bits)] if bits else []
    command = ["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", f"{name}@laptop"]
    subprocess.run([*command, "-f", str(file)], check=True)
    return file


def public(file: Path) -> str:
    """Read the line that a workload's file lists."""
    return file.with_name(f"{file.name}.pub").read_text().strip()


def sign(file: Path, text: str, namespace: str = "flywheel", *options: str) -> str:
    """Sign with ``ssh-keygen`` itself."""
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(file), *options]
    made = subprocess.run(command, input=text.encode(), capture_output=True, check=True)
    return made.stdout.decode()


def run_line(line: str, key: Path, **words: str) -> str:
    """Fill in the beginning of a line that a form shows, run it in a shell; give what it prints."""
    assert line.startswith("who='"), line
    for name, text in words.items():
        assert "'" not in text, "the line's quotes would end there"
        line = re.sub(rf"\b{name}='?\w*'?", lambda _, to=f"{name}='{text}'": to, line, count=1)
    line = line.replace("-f ~/.ssh/id_ed25519", f"-f {shlex.quote(str(key))}")
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True)
    return done.stdout


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def armored(key: bytes, signature: bytes, namespace: str = "flywheel") -> str:
    parts = (key, namespace.encode(), b"", b"sha512", signature)
    blob = b"SSHSIG" + struct.pack(">I", 1) + b"".join(map(string, parts))
    text = base64.encodebytes(blob).decode()
    return f"-----BEGIN SSH SIGNATURE-----\n{text}-----END SSH SIGNATURE-----\n"


def to_be_signed(text: str, namespace: str = "flywheel") -> bytes:
    digest = hashlib.sha512(text.encode()).digest()
    parts = (namespace.encode(), b"", b"sha512", digest)
    return b"SSHSIG" + b"".join(map(string, parts))


@dataclass
class SecurityKey:
    """A FIDO key in software, as OpenSSH's PROTOCOL.u2f has it; somebody touches it, or not."""

    kind: str
    application: bytes = b"ssh:"
    counter: int = 7

    def __post_init__(self) -> None:
        if self.kind == "sk-ssh-ed25519@openssh.com":
            self.private: Ed25519PrivateKey | ec.EllipticCurvePrivateKey
            self.private = Ed25519PrivateKey.generate()
            point = string(self.private.public_key().public_bytes(*RAW))
        else:
            self.private = ec.generate_private_key(ec.SECP256R1())
            public = self.private.public_key().public_bytes(*POINT)
            point = string(b"nistp256") + string(public)
        self.key = string(self.kind.encode()) + point + string(self.application)

    @property
    def public(self) -> str:
        return f"{self.kind} {base64.b64encode(self.key).decode()} ada@token"

    def sign(self, text: str, *, flags: int = 1, namespace: str = "flywheel") -> str:
        message = hashlib.sha256(to_be_signed(text, namespace)).digest()
        tail = bytes([flags]) + struct.pack(">I", self.counter)
        signed = hashlib.sha256(self.application).digest() + tail + message
        if isinstance(self.private, Ed25519PrivateKey):
            made = self.private.sign(signed)
        else:
            numbers = decode_dss_signature(self.private.sign(signed, ec.ECDSA(hashes.SHA256())))
            made = b"".join(string(_mpint(n)) for n in numbers)
        blob = string(self.kind.encode()) + string(made) + tail
        return armored(self.key, blob, namespace)


def _mpint(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "big")
