"""The GPUs of this process, how a model runs best on them, and a record of what computed."""

import importlib.util
import math
import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, TypeAlias

import psutil

from components.costs import Work
from components.schema import Json

Half: TypeAlias = Literal["bf16", "fp16"]

AMPERE = (8, 0)
"""The compute capability from which GPUs multiply in bf16; older ones imitate it, slowly."""

VOLTA = (7, 0)
"""The compute capability from which Triton compiles kernels."""

LIGER = "liger_kernel"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A CUDA device; ``uuid`` is its own, in whatever order and process it is seen."""

    uuid: str
    name: str
    capability: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Computing:
    """How a model is computed.

    ``half``: the 16-bit type of products; sums, the adapter and the optimizer are fp32. With fp16,
    whose smallest number is 6e-8, the loss is scaled so that small gradients don't become zero.
    ``attention``: transformers' name of it. ``fuses``: norms, rotary embedding and gated MLP are
    Liger's kernels.
    """

    half: Half
    attention: Literal["eager", "sdpa"]
    fuses: bool


def choose_computing(gpus: Sequence[Gpu], *, has_liger: bool) -> Computing:
    """Choose how to train on ``gpus``; the oldest of them decides, since they work as one.

    On a CPU: bf16, and plain attention, whose gradient is faster there than that of the fused one.
    On CUDA: torch's fused attention, never flash attention, which takes no mask of its own while
    our sequences say for each pair of tokens whether one sees the other; and Liger's kernels, but
    for its loss: ours is weighted and computed on the answers' positions only.
    """
    if not gpus:
        return Computing("bf16", "eager", fuses=False)
    oldest = min(gpu.capability for gpu in gpus)
    return Computing(half_type(oldest), "sdpa", fuses=has_liger and oldest >= VOLTA)


def half_type(capability: tuple[int, int]) -> Half:
    """Name the 16-bit type in which a GPU of this compute capability multiplies fast."""
    return "bf16" if capability >= AMPERE else "fp16"


def best_computing() -> Computing:
    """Choose for this machine, of its GPUs and the packages that are installed."""
    return choose_computing(cuda_devices(), has_liger=importlib.util.find_spec(LIGER) is not None)


def cuda_devices() -> tuple[Gpu, ...]:
    """List the CUDA devices that this process may use, in torch's order; none on a CPU."""
    import torch

    found = (torch.cuda.get_device_properties(one) for one in range(torch.cuda.device_count()))
    return tuple(Gpu(str(one.uuid), one.name, (one.major, one.minor)) for one in found)


LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "trl",
    "accelerate",
    "bitsandbytes",
    "safetensors",
)
"""Those whose version may move the weights of a training."""


def describe_environment() -> dict[str, Json]:
    """Describe this process's environment."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device_name(),
        "libraries": {name: _library_version(name) for name in LIBRARIES},
    }


def device_name(proc: Path = Path("/proc")) -> str:
    """Name the GPUs as their driver does, or the processor."""
    named_gpus = driver_gpus(proc)
    if named_gpus:
        return ", ".join(named_gpus)
    cpus = proc / "cpuinfo"
    named = (
        re.search(r"^model name\s*:\s*(.+)$", cpus.read_text(), re.MULTILINE)
        if (cpus.is_file())
        else None
    )
    return named.group(1) if named else platform.machine()


def driver_gpus(proc: Path = Path("/proc")) -> list[str]:
    """List the machine's NVIDIA GPUs by their driver's name, held by this process or not."""
    return [
        found.group(1)
        for file in sorted(proc.glob("driver/nvidia/gpus/*/information"))
        if (found := re.search(r"^Model:\s*(.+)$", file.read_text(), re.MULTILINE))
    ]


@dataclass(frozen=True, slots=True)
class Graphics:
    """An NVIDIA GPU by its driver's name; ``capability`` is CUDA's, ``None`` where nobody says."""

    name: str
    capability: tuple[int, int] | None


QUERY = ("nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader")


def graphics(dev: Path = Path("/dev"), proc: Path = Path("/proc")) -> list[Graphics]:
    """List the machine's NVIDIA GPUs, without loading torch; empty where a CPU computes."""
    if not any((dev / driver).exists() for driver in ("nvidiactl", "dxg")):
        return []
    with suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(QUERY, capture_output=True, text=True, check=True, timeout=30).stdout
        if found := read_graphics(told):
            return found
    return [Graphics(name, None) for name in driver_gpus(proc)] or [Graphics("GPU", None)]


def graphics_memory(dev: Path = Path("/dev")) -> int | None:
    """Return the bytes of the smallest NVIDIA GPU's memory; ``None`` where there is no GPU."""
    if not (dev / "nvidiactl").exists():
        return None
    query = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        output = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30)
        return min(int(line) * 2**20 for line in output.stdout.split())
    return None


def read_graphics(told: str) -> list[Graphics]:
    """Read what ``nvidia-smi`` answers to ``QUERY``: a GPU a line, such as ``NVIDIA H100, 9.0``."""
    found = re.findall(r"^(.+), (\d+)\.(\d+)$", told, re.MULTILINE)
    return [Graphics(name, (int(major), int(minor))) for name, major, minor in found]


def cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Count the cores that this process may use, by its affinity and its container's CPU quota."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (FileNotFoundError, ValueError):  # cgroup v1, or not in a group of its own
        return allowed
    return allowed if quota == "max" else min(allowed, math.ceil(int(quota) / int(period)))


def child_processes() -> list[psutil.Process]:
    """List the processes that this one has started, and those that they have."""
    return psutil.Process().children(recursive=True)


def cpu_seconds(workers: Sequence[psutil.Process] = ()) -> float:
    """Return the CPU time of this process, of its children that have ended, and of ``workers``."""
    ended = os.times()
    seconds = time.process_time() + ended.children_user + ended.children_system
    for worker in workers:
        with suppress(psutil.NoSuchProcess):
            times = worker.cpu_times()
            seconds += times.user + times.system
    return seconds


def measure_work(*, cpu: float, wall: float, gpus_held: int) -> Work:
    """Measure work by the GPUs that were held for it or, where it held none, by its CPU time.

    Args:
        cpu: Seconds of CPU time.
        wall: Seconds on the clock.
        gpus_held: How many GPUs it held meanwhile.
    """
    if gpus_held:
        return Work(round(wall * gpus_held, 3), "GPU", max(gpus_held, len(driver_gpus())))
    return Work(round(cpu, 3), "core", cores())


def _library_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
