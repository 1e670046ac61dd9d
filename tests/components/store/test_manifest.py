"""A manifest is written last, also on the disk."""

import os
from pathlib import Path

import pytest

from components.store import manifest, output_folders
from tests.support.logs import NOW


def test_every_file_is_on_the_disk_before_the_manifest_is_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a lost power leaves empty files that count as finished, and are never made again."""
    (tmp_path / "deep").mkdir()
    for name in ("weights", "deep/config"):
        (tmp_path / name).write_text(name)
    synced: list[tuple[str, bool]] = []

    def note(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path).as_posix()
        synced.append((name, (tmp_path / manifest.NAME).exists()))

    monkeypatch.setattr(os, "fsync", note)
    manifest.write(tmp_path, kind="adapter", now=NOW, body={})
    assert synced == [("deep/config", False), ("weights", False), ("manifest.json.partial", False)]


def test_an_output_on_another_disk_is_removed_there(tmp_path: Path) -> None:
    disk, folder = tmp_path / "disk", tmp_path / "snapshots" / "support" / "s1"
    disk.mkdir()
    (disk / "train.parquet").write_bytes(b"rows")
    folder.parent.mkdir(parents=True)
    folder.symlink_to(disk)
    manifest.write(folder, kind="snapshot", now=NOW, body={})
    output_folders.remove(folder)
    assert not disk.exists()
    assert not folder.is_symlink()
