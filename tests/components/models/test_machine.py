import os
from pathlib import Path

import pytest

from components.costs import Work
from components.models import device


def test_gpus_have_their_drivers_names(tmp_path: Path):
    for number in (0, 1):
        folder = tmp_path / "driver/nvidia/gpus" / f"0000:0{number}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 7\n")
    assert device.device_name(tmp_path) == "NVIDIA H100 80GB HBM3, NVIDIA H100 80GB HBM3"


def test_without_a_gpu_the_device_is_the_processor(tmp_path: Path):
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: Xeon 6\nmodel name\t: Xeon 6\n"
    )
    assert device.device_name(tmp_path) == "Xeon 6"


@pytest.mark.parametrize(
    ("quota", "allowed"),
    [
        pytest.param("50000 100000", 1, id="half-a-core"),
        pytest.param("max 100000", None, id="no-limit"),
        pytest.param("6400000 100000", None, id="more-than-there-are"),
        pytest.param(None, None, id="no-group"),
    ],
)
def test_cores_are_limited_by_the_cpu_quota(tmp_path: Path, quota: str | None, allowed: int | None):
    if quota:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert device.cores(tmp_path) == (allowed or len(os.sched_getaffinity(0)))


def test_work_is_measured_by_the_gpus_held_or_otherwise_by_cores():
    assert device.measure_work(cpu=5.0, wall=2.0, gpus_held=3) == Work(6.0, "GPU", 3)
    assert device.measure_work(cpu=5.0, wall=2.0, gpus_held=0) == Work(5.0, "core", device.cores())
