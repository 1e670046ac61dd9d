"""Signatures by ``ssh-keygen`` are valid for each type of key; changed ones are not."""

import subprocess
from pathlib import Path

import pytest

from components.decide import ssh_signatures
from components.decide.ssh_signatures import SK_ECDSA, SK_ED25519, SignatureError, UntouchedError
from tests.support import ssh
from tests.support.ssh import SecurityKey

TEXT = '{"decision":"approve"}'


def key_of(public: str) -> str:
    return ssh_signatures.public_key(public).key


@pytest.mark.parametrize(
    ("kind", "bits"),
    [
        pytest.param("ed25519", None, id="ed25519"),
        pytest.param("ecdsa", 256, id="ecdsa-256"),
        pytest.param("ecdsa", 384, id="ecdsa-384"),
        pytest.param("ecdsa", 521, id="ecdsa-521"),
        pytest.param("rsa", 2048, id="rsa"),
    ],
)
@pytest.mark.parametrize("hashed", ["sha256", "sha512"])
def test_signatures_by_ssh_keygen_are_valid(
    tmp_path: Path, kind: str, bits: int | None, hashed: str
) -> None:
    file = ssh.keygen(tmp_path, "ada", kind, bits)
    for number in range(4):  # numbers of ecdsa are of different lengths
        text = f"{TEXT}{number}"
        signature = ssh_signatures.read_signature(
            ssh.sign(file, text, "flywheel", "-O", f"hashalg={hashed}")
        )
        ssh_signatures.verify_signature(text.encode(), signature)
        assert signature.key == key_of(ssh.public(file))
        with pytest.raises(SignatureError, match="does not hold"):
            ssh_signatures.verify_signature(text.encode() + b" ", signature)


@pytest.mark.parametrize("kind", [SK_ED25519, SK_ECDSA])
def test_a_touched_security_key_is_valid_here_and_for_ssh_keygen(tmp_path: Path, kind: str) -> None:
    key = SecurityKey(kind)
    many = [key.sign(TEXT) for _ in range(4)]
    for made in many:
        signature = ssh_signatures.read_signature(made)
        ssh_signatures.verify_signature(TEXT.encode(), signature)
        assert signature.key == key_of(key.public)
    signers = tmp_path / "allowed_signers"
    signers.write_text(ssh_signatures.write_line("ada", ssh_signatures.public_key(key.public)))
    (tmp_path / "sig").write_text(many[-1])
    command = ["ssh-keygen", "-Y", "verify", "-n", "flywheel", "-I", "ada", "-f", str(signers)]
    result = subprocess.run(
        [*command, "-s", str(tmp_path / "sig")],
        input=TEXT,
        text=True,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("kind", [SK_ED25519, SK_ECDSA])
def test_an_untouched_security_key_proves_nothing(kind: str) -> None:
    key = SecurityKey(kind)
    with pytest.raises(UntouchedError):
        ssh_signatures.verify_signature(
            TEXT.encode(), ssh_signatures.read_signature(key.sign(TEXT, flags=0))
        )
    with pytest.raises(UntouchedError):  # the PIN was given, and nobody touched it
        ssh_signatures.verify_signature(
            TEXT.encode(), ssh_signatures.read_signature(key.sign(TEXT, flags=4))
        )


def test_a_changed_flag_or_application_is_invalid() -> None:
    key = SecurityKey(SK_ED25519)
    signature = ssh_signatures.read_signature(key.sign(TEXT, flags=0))
    forged = signature.blob[:-5] + b"\x01" + signature.blob[-4:]
    changed = ssh_signatures.Signature(
        signature.key_type,
        signature.key,
        signature.namespace,
        signature.hash_name,
        signature.reserved,
        forged,
    )
    with pytest.raises(SignatureError, match="does not hold"):
        ssh_signatures.verify_signature(TEXT.encode(), changed)


def test_a_signature_for_something_else_is_refused(tmp_path: Path) -> None:
    file = ssh.keygen(tmp_path)
    with pytest.raises(SignatureError, match="for 'git', expected -n flywheel"):
        ssh_signatures.verify_signature(
            TEXT.encode(), ssh_signatures.read_signature(ssh.sign(file, TEXT, "git"))
        )


def test_every_byte_of_a_signature_counts(tmp_path: Path) -> None:
    import base64

    made = ssh.sign(ssh.keygen(tmp_path), TEXT)
    blob = bytearray(base64.b64decode("".join(made.splitlines()[1:-1])))
    for place in range(len(blob)):
        changed = bytes(blob[:place]) + bytes([blob[place] ^ 1]) + bytes(blob[place + 1 :])
        text = base64.encodebytes(changed).decode()
        with pytest.raises(SignatureError):
            ssh_signatures.verify_signature(
                TEXT.encode(),
                ssh_signatures.read_signature(
                    f"{ssh_signatures.BEGIN}\n{text}{ssh_signatures.END}\n"
                ),
            )


@pytest.mark.parametrize("kind", ["dsa", "short-rsa", "certificate", "nothing", "too-long"])
def test_unsupported_keys_are_refused(tmp_path: Path, kind: str) -> None:
    if kind == "short-rsa":
        text = ssh.public(ssh.keygen(tmp_path, "ada", "rsa", 1024))
    elif kind == "certificate":
        file = ssh.keygen(tmp_path)
        ssh.keygen(tmp_path, "ca")
        command = ["ssh-keygen", "-q", "-s", str(tmp_path / "ca-ed25519"), "-I", "x", f"{file}.pub"]
        subprocess.run(command, check=True)
        text = file.with_name(f"{file.name}-cert.pub").read_text()
    else:
        text = {
            "dsa": "ssh-dss AAAAB3NzaC1kc3MAAAAA",
            "nothing": "ssh-ed25519",
            "too-long": ssh.public(ssh.keygen(tmp_path)).replace(" ada", "AAAA ada"),
        }[kind]
    with pytest.raises(ValueError, match=r"key|bits|bytes too many|base64"):
        ssh_signatures.public_key(text)
