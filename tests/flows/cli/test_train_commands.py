"""``flywheel train --plan`` as a person types it."""

import re
from pathlib import Path

import pytest

from components.schema import Progress
from flows.cli import training_plan
from flows.cli.progress import count_text
from tests.support import small_workload_file
from tests.support.small_workload_file import run

YAML = """\
workload: weather
base: base
sources: {logs: [logs/*.jsonl]}
curate: {holdout_share: 0.3}
train: {per_device_train_batch_size: 4, r: 4}
worker: {price_per_hour: 360}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return small_workload_file.build(tmp_path, monkeypatch, YAML)


@pytest.mark.slow
def test_a_plan_of_the_newest_snapshot_says_what_the_training_takes(config: Path):
    run("collect", config)
    key = run("curate", config).stdout.split("snapshot ")[-1].partition(":")[0]
    done = run("train", config, "--plan", "--calibrate", "0")
    assert done.exit_code == 0, done.stderr
    output = done.stdout
    assert key in output.splitlines()[0]
    assert re.search(r"trains +8,192 of [0-9,]+ parameters \([0-9.]+%\)", output)
    assert re.search(r"v_proj +2 x 4 \(32 \+ 64\) +768", output)
    assert re.search(r"peak .*\d\.\d{3}", output)
    assert re.search(r"time +not known: nothing was tried", output)
    assert re.search(r"fits +yes: .* GB free on this machine", output)


@pytest.mark.slow
def test_the_time_that_is_foreseen_has_its_price(config: Path):
    run("collect", config)
    run("curate", config)
    output = run("train", config, "--plan", "--calibrate", "0.1").stdout
    (seconds,) = re.findall(r"time +(\d+) s, from", output)
    (cost,) = re.findall(r"cost +([0-9.]+) at 360 an hour", output)
    assert float(cost) == pytest.approx(float(seconds) / 10, abs=0.1)


def test_a_calibration_shows_how_much_of_its_time_has_passed():
    figures = {"seconds": 10.52, "peak_bytes": 2.64e9, "loaded_bytes": 6.76e8}
    now = Progress("calibrate", 3, 86, "steps", figures)
    shown = count_text(training_plan.shown_calibration(now, seconds=30))
    assert shown == "calibrate step 3 2.64 GB, 11 of 30 seconds"


def test_a_workload_without_a_snapshot_is_told_how_to_get_one(config: Path):
    done = run("train", config, "--plan")
    assert done.exit_code == 2
    assert "workload weather has no snapshot" in done.stderr
    assert "flywheel curate" in done.stderr


def test_training_without_a_stack_says_how_to_start_one(config: Path):
    run("collect", config)
    run("curate", config)
    done = run("train", config)
    assert done.exit_code == 2
    assert "`flywheel up` starts it" in done.stderr
