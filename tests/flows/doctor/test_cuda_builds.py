"""Which build of torch, driver, GPUs and bitsandbytes go together, from invented machines."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from components.models.device import Graphics
from flows.doctor import cuda_builds, probes
from flows.doctor.cuda_builds import Compute
from flows.doctor.finding import CheckResult

H100 = Graphics("NVIDIA H100", (9, 0))
V100 = Graphics("Tesla V100", (7, 0))
RTX5090 = Graphics("NVIDIA GeForce RTX 5090", (12, 0))

LIBRARIES = frozenset({(11, 8), (12, 6), (12, 8), (13, 0)})
KERNELS = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")

WORKS = Compute(
    torch="2.13.0+cu130",
    cuda=(13, 0),
    driver="580.65.06",
    cards=(H100,),
    gpus=(H100,),
    kernels=KERNELS,
    bitsandbytes="0.50.2",
    libraries=LIBRARIES,
    four_bit_trouble=None,
    products="bf16",
)
NO_GPU = replace(WORKS, torch="2.13.0+cpu", cuda=None, driver=None, cards=(), gpus=(), kernels=())
UNSEEN = replace(WORKS, gpus=(), kernels=())
CPU_BUILD = replace(UNSEEN, torch="2.13.0+cpu", cuda=None)

CU130 = "pip install torch==2.13.0+cu130 --index-url https://download.pytorch.org/whl/cu130"
CU126 = "pip install torch==2.13.0+cu126 --index-url https://download.pytorch.org/whl/cu126"
UPGRADE = "pip install --upgrade --no-deps bitsandbytes"


def level(result: CheckResult) -> str:
    assert bool(result.fix) == (result.level != "fine"), "what is wrong has a fix"
    return result.level


@pytest.mark.parametrize(
    ("compute", "state"),
    [
        pytest.param(
            NO_GPU, "none here; torch 2.13.0+cpu trains on the processor in bf16", id="no-gpu"
        ),
        pytest.param(WORKS, "torch 2.13.0+cu130 (CUDA 13.0) uses NVIDIA H100", id="works"),
        pytest.param(
            replace(WORKS, kernels=("sm_80", "compute_80")),
            "torch 2.13.0+cu130 (CUDA 13.0) uses NVIDIA H100",
            id="its-driver-compiles",
        ),
    ],
)
def test_gpus_that_torch_uses_are_fine(compute: Compute, state: str) -> None:
    result = cuda_builds.check_gpus(compute)
    assert (level(result), result.state) == ("fine", state)


@pytest.mark.parametrize(
    ("compute", "state", "fix"),
    [
        pytest.param(CPU_BUILD, "was built without CUDA", CU130, id="cpu-build"),
        pytest.param(
            replace(CPU_BUILD, driver="550.54.15"), "without CUDA", CU126, id="cpu-build-old-driver"
        ),
        pytest.param(
            replace(CPU_BUILD, cards=(V100,)), "without CUDA", CU126, id="cpu-build-old-card"
        ),
        pytest.param(
            replace(CPU_BUILD, driver=None, cards=(Graphics("GPU", None),)),
            "without CUDA",
            CU130,
            id="cpu-build-unknown-driver-and-card",
        ),
        pytest.param(
            replace(UNSEEN, driver="535.104.05"),
            "driver 535.104.05, but torch 2.13.0+cu130 (CUDA 13.0) needs 580 or newer",
            CU126,
            id="driver-too-old",
        ),
        pytest.param(
            replace(UNSEEN, driver="470.82.01"),
            "needs 580 or newer",
            f"a driver of 580 or newer, then {CU130}",
            id="driver-too-old-for-any-build",
        ),
        pytest.param(
            replace(UNSEEN, driver="570.86.15", cards=(RTX5090,)),
            "needs 580 or newer",
            f"a driver of 580 or newer, then {CU130}",
            id="new-card-wants-the-new-driver",
        ),
        pytest.param(
            UNSEEN, "sees none", "look at `nvidia-smi` and at CUDA_VISIBLE_DEVICES", id="hidden"
        ),
        pytest.param(
            replace(WORKS, cards=(V100,), gpus=(V100,)),
            "has no kernels for Tesla V100 (compute capability 7.0)",
            CU126,
            id="card-too-old-for-the-build",
        ),
        pytest.param(
            replace(WORKS, cards=(V100, RTX5090), gpus=(V100, RTX5090)),
            "has no kernels for Tesla V100",
            "hide some GPUs by CUDA_VISIBLE_DEVICES: no build of torch has kernels for Tesla "
            "V100, NVIDIA GeForce RTX 5090",
            id="no-build-for-both-cards",
        ),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_told_the_build_that_can(
    compute: Compute, state: str, fix: str
) -> None:
    result = cuda_builds.check_gpus(compute)
    assert level(result) == "wrong"
    assert state in result.state
    assert result.fix == fix


MISMATCH = "RuntimeError: no compatible binary"


@pytest.mark.parametrize(
    ("compute", "state", "fix"),
    [
        pytest.param(
            replace(WORKS, libraries=frozenset({(11, 8), (12, 8)}), four_bit_trouble=MISMATCH),
            "bitsandbytes 0.50.2 has libraries for 11.8, 12.8, and torch 2.13.0+cu130 was built "
            "with CUDA 13.0",
            UPGRADE,
            id="bitsandbytes-behind",
        ),
        pytest.param(
            replace(WORKS, libraries=frozenset({(12, 6)}), four_bit_trouble=MISMATCH),
            "has libraries for 12.6",
            f"{UPGRADE}, or {CU126}",
            id="bitsandbytes-behind-with-a-build-for-it",
        ),
        pytest.param(
            replace(WORKS, torch="2.20.0", cuda=(14, 0), four_bit_trouble=MISMATCH),
            "built with CUDA 14.0",
            f"{UPGRADE}, or {CU130.replace('2.13', '2.20')}",
            id="torch-ahead",
        ),
        pytest.param(
            replace(UNSEEN, libraries=frozenset({(12, 8)})),
            "has libraries for 12.8",
            UPGRADE,
            id="pair-is-wrong-although-torch-sees-no-gpu-yet",
        ),
        pytest.param(
            replace(WORKS, torch="2.10.0", cuda=(12, 9), four_bit_trouble=MISMATCH),
            "built with CUDA 12.9",
            CU130.replace("2.13", "2.10"),
            id="minor-version-that-this-release-does-not-fall-back-from",
        ),
        pytest.param(
            replace(WORKS, libraries=frozenset()), "for no version of CUDA", UPGRADE, id="none"
        ),
        pytest.param(
            replace(WORKS, four_bit_trouble="RuntimeError: out of memory"),
            "4-bit weights don't work: RuntimeError: out of memory",
            "pip install --force-reinstall --no-deps bitsandbytes, or set "
            "`bnb_4bit_quant_type: null` under "
            "train",
            id="another-trouble-is-passed-on",
        ),
        pytest.param(
            replace(NO_GPU, four_bit_trouble="OSError: no library"),
            "OSError: no library",
            "pip install --force-reinstall --no-deps bitsandbytes, or set "
            "`bnb_4bit_quant_type: null` under "
            "train",
            id="trouble-on-a-processor",
        ),
    ],
)
def test_a_wrong_bitsandbytes_is_told_apart_from_other_trouble(
    compute: Compute, state: str, fix: str
) -> None:
    result = cuda_builds.check_four_bit(compute)
    assert level(result) == "wrong"
    assert state in result.state
    assert result.fix == fix


@pytest.mark.parametrize(
    ("compute", "state"),
    [
        pytest.param(WORKS, "4-bit weights work with CUDA 13.0", id="exact"),
        pytest.param(
            replace(WORKS, cuda=(13, 1)), "4-bit weights work with CUDA 13.1", id="falls-back"
        ),
        pytest.param(UNSEEN, "has a library for CUDA 13.0", id="tried-on-the-processor-only"),
        pytest.param(NO_GPU, "4-bit weights work", id="processor"),
        pytest.param(replace(NO_GPU, cuda=(13, 0)), "4-bit weights work", id="cuda-without-a-gpu"),
    ],
)
def test_a_right_pair_is_fine(compute: Compute, state: str) -> None:
    result = cuda_builds.check_four_bit(compute)
    assert (level(result), result.state) == ("fine", state)


@pytest.mark.parametrize(
    "line",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.104.05  Release Build  (x)",
    ],
)
def test_the_driver_is_read_from_its_kernel_module(tmp_path: Path, line: str) -> None:
    file = tmp_path / "driver/nvidia/version"
    file.parent.mkdir(parents=True)
    file.write_text(f"{line}\nGCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)\n")
    assert probes.driver_version(tmp_path) == "535.104.05"
    assert probes.driver_version(tmp_path / "driver") is None


def test_libraries_of_bitsandbytes_are_read_by_their_names(tmp_path: Path) -> None:
    for name in ("cpu", "cuda118", "cuda130", "cuda128_nocublaslt", "rocm71", "xpu2025"):
        (tmp_path / f"libbitsandbytes_{name}.so").touch()
    assert set(probes.cuda_libraries(tmp_path)) == {(11, 8), (13, 0)}


def test_the_cuda_image_has_a_torch_and_the_bitsandbytes_that_goes_with_it() -> None:
    infra = Path(__file__).parents[3] / "infra"
    torch = (infra / "torch-cuda.lock").read_text()
    others = (infra / "requirements.lock").read_text()
    (major, minor) = re.findall(r"(?m)^nvidia-cuda-runtime==(\d+)\.(\d+)\.", torch)[0]
    (locked,) = re.findall(r"(?m)^bitsandbytes==([\d.]+)", others)
    installed = probes.installed_versions([probes.Requirement("bitsandbytes")])["bitsandbytes"]
    if installed != locked:
        pytest.skip(f"bitsandbytes {installed} is installed here, and the image has {locked}")
    assert (int(major), int(minor)) in set(probes.cuda_libraries())
