import os
from pathlib import Path

import pytest

from components.costs import Work
from components.models import device, machine


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
    assert machine.cores(tmp_path) == (allowed or len(os.sched_getaffinity(0)))


def test_a_block_of_limited_memory_can_not_take_more_and_what_follows_can():
    with machine.limited_memory(2**28):
        assert len(bytes(2**20)) == 2**20
        with pytest.raises(MemoryError):
            bytes(2**30)
    assert len(bytes(2**30)) == 2**30


def test_work_is_measured_by_the_gpus_held_or_otherwise_by_cores():
    assert device.measure_work(cpu=5.0, wall=2.0, gpus_held=3) == Work(6.0, "GPU", 3)
    assert device.measure_work(cpu=5.0, wall=2.0, gpus_held=0) == Work(5.0, "core", machine.cores())


MIB = 2**20


def limited(folder: Path, limit: str, used: int, droppable: int = 0, version: int = 2) -> None:
    """Write what a memory cgroup of version 1 or 2 shows."""
    names = (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    )[2 - version]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used * MIB}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {droppable * MIB}\n")


def available(folder: Path, line: str) -> int:
    (folder / "own").write_text(f"3:cpuset:/\n{line}\n")
    return machine.available_memory(folder, folder / "own") // MIB


def test_a_container_has_what_its_limit_leaves_and_files_are_dropped_for_more(tmp_path: Path):
    limited(tmp_path, str(100 * MIB), used=60, droppable=20)
    assert available(tmp_path, "0::/") == 60


def test_the_narrowest_of_nested_limits_counts(tmp_path: Path):
    limited(tmp_path / "a.slice", str(80 * MIB), used=70)
    limited(tmp_path / "a.slice/b.scope", "max", used=40)
    assert available(tmp_path, "0::/a.slice/b.scope") == 10


def test_limits_of_version_1_count_where_a_container_does_not_see_its_own_path(tmp_path: Path):
    limited(tmp_path / "memory", str(100 * MIB), used=60, version=1)
    assert available(tmp_path, "4:memory:/docker/0f3a") == 40


def test_more_used_than_allowed_leaves_nothing(tmp_path: Path):
    limited(tmp_path, str(100 * MIB), used=101)
    assert available(tmp_path, "0::/") == 0


def test_without_a_limit_the_machine_has_what_it_has(tmp_path: Path):
    limited(tmp_path / "memory", "9223372036854771712", used=60, version=1)
    assert available(tmp_path, "4:memory:/") > 0
    assert machine.available_memory(tmp_path / "none", tmp_path / "missing") > 0
