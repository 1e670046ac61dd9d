"""One digest over a folder's bytes, which anybody can compute with coreutils alone."""

import subprocess
from pathlib import Path

import pytest

from components.store.manifest import folder_digest

COREUTILS = "find . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    (folder / "deep").mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"\0weights")
    (folder / "adapter_config.json").write_text("{}")
    (folder / "deep" / "ä name").write_text("x")
    return folder


def test_it_is_what_sha256sum_gives(adapter: Path) -> None:
    said = subprocess.run(COREUTILS, shell=True, cwd=adapter, capture_output=True, check=True)
    assert folder_digest(adapter) == said.stdout.decode().split()[0]


@pytest.mark.parametrize("change", ["content", "name", "file-added", "file-gone", "folder"])
def test_any_change_gives_another(adapter: Path, change: str) -> None:
    before = folder_digest(adapter)
    config, deep = adapter / "adapter_config.json", adapter / "deep"
    if change == "content":
        config.write_text("{ }")
    elif change == "name":
        config.rename(adapter / "other")
    elif change == "file-added":
        (adapter / "code.py").touch()
    elif change == "file-gone":
        (deep / "ä name").unlink()
    else:
        deep.rename(adapter / "deeper")
    assert folder_digest(adapter) != before


@pytest.mark.parametrize("name", ["link", "link-to-folder", "line\nbreak"])
def test_what_could_hide_something_is_refused(adapter: Path, name: str) -> None:
    if name.startswith("link"):
        (adapter / name).symlink_to(adapter if name.endswith("folder") else "/etc/hostname")
    else:
        (adapter / name).touch()
    with pytest.raises(ValueError, match="plain file"):
        folder_digest(adapter)
