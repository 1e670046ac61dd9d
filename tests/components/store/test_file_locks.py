"""A file lock holds against other processes until its holder ends in any way."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from components.store import file_locks

HOLD = """
import sys, time
from pathlib import Path
from components.store import file_locks

with file_locks.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_releases_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "a.lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with file_locks.held(path, wait=False) as is_held:
            assert not is_held
        holder.kill()
    with file_locks.held(path, wait=False) as is_held:
        assert is_held


def test_a_lock_is_free_again_after_its_block(tmp_path: Path) -> None:
    for _ in range(2):
        with file_locks.held(tmp_path / "a.lock", wait=False) as is_held:
            assert is_held


def test_shared_holders_keep_only_others_out(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with path.open("a") as first, path.open("a") as second, path.open("a") as third:
        assert file_locks.lock(first.fileno(), shared=True)
        assert file_locks.lock(second.fileno(), shared=True)
        assert not file_locks.lock(third.fileno(), wait=False)


SPILL = """
import sys, time
from pathlib import Path
from components.store import file_locks

with file_locks.temporary_folder(Path(sys.argv[1]), "duckdb-") as folder:
    (folder / "rows.tmp").write_text("what Ann asked")
    print("held", flush=True)
    time.sleep(60)
"""


def test_only_the_folder_of_a_killed_process_is_abandoned(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SPILL, str(tmp_path)]
    (tmp_path / "of-others").mkdir()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        file_locks.delete_abandoned(tmp_path)
        assert [*tmp_path.glob("duckdb-*/rows.tmp")]
        holder.kill()
    file_locks.delete_abandoned(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["of-others"]


def test_a_folder_in_use_is_spared_when_all_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "x").touch()
    (tmp_path / "y").touch()
    with file_locks.temporary_folder(tmp_path, "init-") as folder:
        file_locks.clear(tmp_path)
        assert [*tmp_path.iterdir()] == [folder]
    assert [*tmp_path.iterdir()] == []
    file_locks.clear(tmp_path / "none")


def test_a_folder_that_is_deleted_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def cleared_first(descriptor: int, kind: int) -> None:
        monkeypatch.undo()
        file_locks.clear(tmp_path)
        flock(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", cleared_first)
    with file_locks.temporary_folder(tmp_path, "init-") as folder:
        file_locks.clear(tmp_path)
        assert [*tmp_path.iterdir()] == [folder]
