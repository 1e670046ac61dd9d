"""A file of retention replaces another one only when it is on the disk."""

import os
from pathlib import Path

import pytest

from components.store import archived_files


def test_content_and_name_are_on_the_disk_before_what_they_replace_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it a lost power leaves an empty file: the rows of all others would be gone."""
    synced: list[tuple[str, list[str]]] = []

    def note(descriptor: int) -> None:
        names = sorted(path.name for path in tmp_path.iterdir())
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, names))

    monkeypatch.setattr(os, "fsync", note)
    partial = tmp_path / ".erasing"
    partial.write_bytes(b"rows")
    path = archived_files.put_in_place(partial)
    assert path.read_bytes() == b"rows"
    assert synced == [(".erasing", [".erasing"]), (tmp_path.name, [path.name])]


def test_a_file_that_is_a_link_is_removed_where_it_leads(tmp_path: Path) -> None:
    disk, file = tmp_path / "disk.parquet", tmp_path / "file.parquet"
    disk.write_bytes(b"rows")
    file.symlink_to(disk)
    archived_files.remove(str(file))
    assert list(tmp_path.iterdir()) == []
