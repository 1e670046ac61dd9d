"""The monitor looks at what it can, whatever else goes wrong in the home meanwhile."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from components.monitor.signs import Sign
from components.monitor.workload_status import Disk
from components.register import registry
from components.release import champions
from components.release.rollback_rules import Order
from flows import monitor, release_home, workload_file
from flows.settings import Settings
from tests.support import mlflow_stores, versions, warehouses, workload_statuses, workload_text


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
    assert 'workload="sound"' in (home / "monitor" / "metrics.prom").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_regression_rolls_back_the_champion_that_it_is_of_and_is_answered_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Settings(folder / "home", 4200, 5000)
    monkeypatch.setenv("FLYWHEEL_HOME", str(home.home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_stores.create(folder))
    warehouses.create(home.warehouse)
    home.monitor.mkdir()
    rules = {"approvers": [{"name": "ann"}], "proof": "code"}
    trigger = {"on_regression": "rollback"}
    config = workload_text.write(folder, workload="weather", approve=rules, trigger=trigger)
    workload = workload_file.read_workload(config)
    votes = Sign("votes", 99.0, 20.0, "thumbs down 1 of 99 before the champion, 60 of 99 on it")
    status = replace(workload_statuses.quiet([]), findings=[votes])

    versions.crowned("weather", 3, home)
    worse = registry.champion_version("weather")
    champions.roll_back(
        release_home.of(home), Order("weather", None, "ann", "rude")
    )  # as it was looked at
    with disable_run_logger():
        monitor.answer_regression.fn(workload, status, worse)
    assert registry.read_aliases("weather").champion == "2"

    marker = home.monitor / "weather.regressed"
    for champion, left in (("2", "1"), ("1", "1")):  # nothing is before the first
        with disable_run_logger():
            monitor.answer_regression.fn(workload, status, registry.champion_version("weather"))
        assert registry.read_aliases("weather").champion == left
        assert marker.read_text() == champion
