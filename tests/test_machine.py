from pathlib import Path

from components import machine


def test_gpus_are_named_as_their_driver_does(tmp_path: Path):
    for number in (0, 1):
        folder = tmp_path / "driver/nvidia/gpus" / f"0000:0{number}:00.0"
        folder.mkdir(parents=True)
        (folder / "information").write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 7\n")
    assert machine.device(tmp_path) == "NVIDIA H100 80GB HBM3, NVIDIA H100 80GB HBM3"


def test_without_a_gpu_the_processor_is_named(tmp_path: Path):
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: Xeon 6\nmodel name\t: Xeon 6\n"
    )
    assert machine.device(tmp_path) == "Xeon 6"
