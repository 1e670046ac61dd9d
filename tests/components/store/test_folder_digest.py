"""The digest of a folder's bytes can be computed with coreutils alone."""

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


def test_it_equals_the_result_of_sha256sum(adapter: Path) -> None:
    said = subprocess.run(COREUTILS, shell=True, cwd=adapter, capture_output=True, check=True)
    assert folder_digest(adapter) == said.stdout.decode().split()[0]


@pytest.mark.parametrize("change", ["content", "name", "file-added", "file-gone", "folder"])
def test_any_change_changes_the_digest(adapter: Path, change: str) -> None:
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
def test_ambiguous_names_and_links_are_refused(adapter: Path, name: str) -> None:
    if name.startswith("link"):
        (adapter / name).symlink_to(adapter if name.endswith("folder") else "/etc/hostname")
    else:
        (adapter / name).touch()
    with pytest.raises(ValueError, match="plain file"):
        folder_digest(adapter)
