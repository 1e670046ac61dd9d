"""A signed folder verifies, also with the library alone, and not after any change."""

import base64
import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from components.models import model_signature
from components.models.model_signature import ModelSignatureError, UnsignedError


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    model_signature.make_key(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path, keys: Path) -> Path:
    model = tmp_path / "model"
    (model / "weights").mkdir(parents=True)
    (model / "weights" / "a.safetensors").write_bytes(b"\x00\x01")
    (model / ".gitignore").write_text("also signed")
    (model / "code.py").write_text("pass")
    model_signature.sign(model, keys / model_signature.PRIVATE)
    return model


def verify(folder: Path, keys: Path) -> None:
    model_signature.verify(folder, keys / model_signature.PUBLIC)


def test_an_installation_has_one_key_that_only_its_owner_can_read(tmp_path: Path) -> None:
    private = model_signature.make_key(tmp_path / "keys")
    before = private.read_bytes()
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert model_signature.make_key(tmp_path / "keys").read_bytes() == before
    assert sorted(path.name for path in private.parent.iterdir()) == ["signing.key", "signing.pub"]


def test_a_folder_verifies_after_a_move_and_with_mlflows_own_file_in_it(
    folder: Path, keys: Path
) -> None:
    (folder / "registered_model_meta").write_text("model_name: w")
    moved = folder.rename(folder.with_name("elsewhere"))
    verify(moved, keys)


@pytest.mark.slow  # the library takes seconds to start
def test_the_library_alone_verifies_a_folder_and_refuses_a_changed_one(
    folder: Path, keys: Path
) -> None:
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
    command += ["--signature", str(folder / "model.sig")]
    command += ["--public_key", str(keys / "signing.pub"), "--no-ignore-git-paths"]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    (folder / "code.py").write_text("evil")
    assert subprocess.run(command, check=False, capture_output=True).returncode != 0


def change_weights(folder: Path) -> None:
    (folder / "weights" / "a.safetensors").write_bytes(b"\x00\x02")


def add(folder: Path) -> None:
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "code.cpython-311.pyc").write_bytes(b"evil")


def add_git(folder: Path) -> None:
    (folder / ".gitattributes").write_text("evil")


def remove(folder: Path) -> None:
    (folder / "code.py").unlink()


def rename(folder: Path) -> None:
    (folder / "code.py").rename(folder / "other.py")


def link(folder: Path) -> None:
    (folder / "code.py").rename(folder.parent / "code.py")
    (folder / "code.py").symlink_to(folder.parent / "code.py")


def sign_otherwise(folder: Path) -> None:
    model_signature.sign(folder, model_signature.make_key(folder.parent / "others"))


def respell(folder: Path) -> None:
    path = folder / model_signature.SIGNATURE
    path.write_text(json.dumps(json.loads(path.read_text())))


def swap_statement(folder: Path) -> None:
    path = folder / model_signature.SIGNATURE
    bundle = json.loads(path.read_text())
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    payload["predicate"]["serialization"]["ignore_paths"].append("weights")
    text = base64.b64encode(json.dumps(payload).encode()).decode()
    bundle["dsseEnvelope"]["payload"] = text
    path.write_text(json.dumps(bundle, separators=(",", ":")))


@pytest.mark.parametrize(
    "attack",
    [
        change_weights,
        add,
        add_git,
        remove,
        rename,
        link,
        sign_otherwise,
        respell,
        swap_statement,
        pytest.param(lambda folder: (folder / "model.sig").write_text("{}"), id="empty"),  # pyright: ignore
        pytest.param(lambda folder: (folder / "model.sig").write_text("[1]"), id="list"),  # pyright: ignore
    ],
)
def test_a_changed_folder_is_refused(folder: Path, keys: Path, attack) -> None:  # pyright: ignore
    verify(folder, keys)
    attack(folder)
    with pytest.raises(ModelSignatureError):
        verify(folder, keys)


def test_a_folder_without_a_signature_has_an_error_of_its_own(folder: Path, keys: Path) -> None:
    (folder / model_signature.SIGNATURE).unlink()
    with pytest.raises(UnsignedError, match=r"there is no model\.sig, so it is not signed"):
        verify(folder, keys)
