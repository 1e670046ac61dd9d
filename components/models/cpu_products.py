"""In which type this machine's CPU multiplies faster, measured once and kept in a file."""

import contextlib
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast, get_args

from components.models import machine
from components.store import manifest

if TYPE_CHECKING:
    import torch

CpuType: TypeAlias = Literal["bf16", "fp32"]

VARIABLE = "FLYWHEEL_CPU_TYPE"
"""Overrides what was measured: ``bf16`` takes half of the memory for the weights."""

ROWS, WIDTH, INNER = 128, 576, 1536
"""Shapes of the products: an MLP of a base of 135 M. The ratio of the two types is that of larger
ones, of which a CPU without 16-bit arithmetic would take seconds for one."""

ROUNDS = 9

PATIENCE = 0.15
"""Seconds after which a type is not tried again: without 16-bit arithmetic one round takes them."""

INSTRUCTIONS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
"""Variables with which torch is told to use fewer of the processor's instructions."""


@dataclass(frozen=True, slots=True)
class CpuSpeed:
    """The speed of products, forward and backward, in GFLOPS of one core."""

    bf16: float
    fp32: float

    @property
    def faster(self) -> CpuType:
        """The type of the faster products; bf16 if they are alike, since it takes less memory."""
        return "bf16" if self.bf16 >= self.fp32 else "fp32"

    def __str__(self) -> str:
        return f"bf16 {self.bf16:.3g}, fp32 {self.fp32:.3g} GFLOPS a core"


def cpu_type() -> CpuType:
    """Return the type in which a training on this CPU multiplies.

    Raises:
        ValueError: ``FLYWHEEL_CPU_TYPE`` names another.
    """
    asked = os.environ.get(VARIABLE, "")
    if not asked:
        return speed().faster
    if asked not in get_args(CpuType):
        raise ValueError(f"{VARIABLE} is {asked!r}, expected bf16 or fp32, or nothing: the faster")
    return cast("CpuType", asked)


def describe() -> str:
    """Return the type of a training's products on this CPU, and why."""
    if os.environ.get(VARIABLE):
        return f"{cpu_type()} ({VARIABLE})"
    return f"{cpu_type()} ({speed()})"


@lru_cache(maxsize=1)
def speed() -> CpuSpeed:
    """Return what was measured on such a CPU with this torch, or measure it in half a second."""
    file = _cached_file()
    with contextlib.suppress(OSError, ValueError, TypeError):
        return CpuSpeed(**json.loads(file.read_text()))
    measured = measure()
    with contextlib.suppress(OSError):  # a process without a home measures each time
        file.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_atomically(file, json.dumps(asdict(measured)))
    return measured


def measure() -> CpuSpeed:
    """Time a linear layer's output and its input's gradient in both types on one core.

    In CPU seconds of one thread: what else runs on the machine delays several unequally.
    """
    import torch

    def compare() -> CpuSpeed:
        torch.set_num_threads(1)
        return CpuSpeed(bf16=_gflops(torch.bfloat16), fp32=_gflops(torch.float32))

    count = torch.get_num_threads()
    with ThreadPoolExecutor(1) as pool:
        measured = pool.submit(compare).result()
    torch.set_num_threads(count)  # some of torch's libraries applied the thread's 1 to the process
    return measured


def _gflops(dtype: "torch.dtype") -> float:
    import torch

    x, weight, gradient = (
        torch.ones(shape, dtype=dtype) for shape in ((ROWS, WIDTH), (INNER, WIDTH), (ROWS, INNER))
    )

    def work() -> None:
        torch.nn.functional.linear(x, weight)
        torch.mm(gradient, weight)

    return 4 * ROWS * WIDTH * INNER / _fastest_round(work) / 1e9


def _fastest_round(work: Callable[[], None]) -> float:
    began, fastest = time.thread_time(), float("inf")
    for _ in range(ROUNDS):  # the first also chooses the kernels
        start = time.thread_time()
        work()
        fastest = min(fastest, time.thread_time() - start)
        if time.thread_time() - began > PATIENCE:
            break
    return fastest


def _cached_file() -> Path:
    conditions = {
        "processor": machine.processor(),
        "torch": version("torch"),
        **{name: os.environ.get(name, "") for name in INSTRUCTIONS},
    }
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return root / "lora-flywheel" / f"cpu-products-{manifest.digest(conditions)}.json"
