"""The machine's GPUs and packages decide on precision, attention and kernels."""

import pytest

from components.models.cpu_products import CpuType
from components.models.device import Computing, Gpu, choose_computing

T4 = Gpu("t4", "Tesla T4", (7, 5))
P100 = Gpu("p100", "Tesla P100", (6, 0))
H100 = Gpu("h100", "NVIDIA H100", (9, 0))


@pytest.mark.parametrize(
    ("gpus", "has_liger", "expected"),
    [
        pytest.param(
            [H100], False, Computing("bf16", "sdpa", fuses=False, widens=False), id="without-liger"
        ),
        pytest.param(
            [H100], True, Computing("bf16", "sdpa", fuses=True, widens=False), id="with-liger"
        ),
        pytest.param(
            [T4], True, Computing("fp16", "sdpa", fuses=True, widens=True), id="before-ampere"
        ),
        pytest.param(
            [P100], True, Computing("fp16", "sdpa", fuses=False, widens=True), id="before-triton"
        ),
        pytest.param(
            [H100, T4], False, Computing("fp16", "sdpa", fuses=False, widens=True), id="mixed"
        ),
    ],
)
def test_the_oldest_gpu_decides_how_all_of_them_compute(
    gpus: list[Gpu], has_liger: bool, expected: Computing
) -> None:
    assert choose_computing(gpus, has_liger=has_liger, on_cpu=lambda: "fp32") == expected


@pytest.mark.parametrize("faster", ["bf16", "fp32"])
def test_a_cpu_computes_in_the_type_that_is_faster_there(faster: CpuType) -> None:
    chosen = choose_computing([], has_liger=True, on_cpu=lambda: faster)
    assert chosen == Computing(faster, "eager", fuses=False, widens=True)
