"""The monitor looks at what it can, whatever else goes wrong in the home meanwhile."""

import shutil
from pathlib import Path

import pytest

from components.monitor.workload_status import Disk
from flows import monitor
from flows.settings import Settings
from tests.support import workload_text


def test_files_that_vanish_meanwhile_do_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "gone", "replaced", "checkpoints/checkpoint-1/weights", "jobs/log.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("12345")
    stat = Path.stat

    def busy(path: Path, *, follow_symlinks: bool = True) -> object:
        """Read a file's size as a training of the same home goes on."""
        if path.name == "first":
            shutil.rmtree(tmp_path / "checkpoints")
        if path.name == "gone":
            path.unlink()
        status = stat(path, follow_symlinks=follow_symlinks)
        if path.name == "replaced":
            path.unlink()
        return status

    monkeypatch.setattr(Path, "stat", busy)
    disk: Disk = monitor.measure_disk.fn(Settings(tmp_path, 4200, 5000))
    assert disk.used == 15
    assert disk.free > 0


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_workload_that_cannot_be_looked_at_silences_no_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = folder / "home"
    monkeypatch.setenv("FLYWHEEL_HOME", str(home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    (home / "workloads").mkdir(parents=True)
    for name in ("broken", "sound"):
        text = workload_text.write(folder, workload=name).read_text()
        (folder / f"{name}.yaml").write_text(text)
        (home / "workloads" / f"{name}.yaml").symlink_to(folder / f"{name}.yaml")
    card = home / "scorecards" / "broken" / "k1" / "manifest.json"
    card.parent.mkdir(parents=True)
    card.write_text("damaged")

    with pytest.raises(monitor.MonitorError, match=r"^monitoring broken: failed.* 1 other"):
        monitor.monitor()
    assert (home / "monitor" / "sound.html").exists()
    assert 'workload="sound"' in (home / "monitor" / "metrics.prom").read_text()
