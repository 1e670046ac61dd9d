"""Commands in a home whose disk is full: one sentence, nothing half done, and then they work."""

import hashlib
from pathlib import Path

import pytest

from tests.support import logs, small_disk, small_workload_file
from tests.support.small_workload_file import run

YAML = """\
workload: weather
base: base
sources: {logs: [logs/*.jsonl]}
curate: {holdout_share: 0.3}
"""


def words(number: int) -> str:
    """Write a request like no other."""
    return " ".join(hashlib.sha256(f"{number} {word}".encode()).hexdigest() for word in range(20))


@pytest.mark.slow
def test_collect_and_curate_say_that_the_disk_is_full_and_work_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = small_workload_file.build(tmp_path, monkeypatch, YAML)
    with small_disk.mounted(tmp_path / "disk", "16m") as disk:
        monkeypatch.setenv("FLYWHEEL_HOME", str(disk / "home"))
        assert run("collect", config).exit_code == 0
        lines = [
            logs.interaction(words(n), response_id=f"q{n}", workload_id="weather")
            for n in range(100)
        ]
        logs.write(tmp_path / "logs/b.jsonl", lines)
        ballast = small_disk.fill(disk)
        for command in ("collect", "curate"):
            done = run(command, config)
            assert done.exit_code == 1, done.output
            assert "No space left on device" in done.stderr
            assert "its disk is full, " in done.stderr or "make room there, then" in done.stderr
            assert isinstance(done.exception, SystemExit)
        assert not list((disk / "home").glob("snapshots/weather*/*/manifest.json"))
        ballast.unlink()
        assert "100 new rows" in run("collect", config).stdout
        done = run("curate", config)
        assert done.exit_code == 0, done.output
        assert "snapshot " in done.stdout
