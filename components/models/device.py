"""The machine's GPUs and cores, how to compute on them, and a description for manifests."""

import importlib.util
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, TypeAlias

import psutil

from components.costs import Work
from components.models import cpu_products, machine
from components.models.cpu_products import CpuType
from components.schema import Json

Half: TypeAlias = Literal["bf16", "fp16"]
"""A GPU's 16-bit type of products."""

Products: TypeAlias = Literal["bf16", "fp16", "fp32"]
"""The type of products; sums are fp32."""

Attention: TypeAlias = Literal["eager", "sdpa"]
"""An implementation of attention by transformers' name."""

AMPERE = (8, 0)
"""The lowest compute capability that multiplies in bf16; older GPUs emulate it, slowly."""

VOLTA = (7, 0)  # the lowest compute capability that Triton compiles kernels for

LIGER = "liger_kernel"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A CUDA device; ``uuid`` does not depend on the order of devices or on the process."""

    uuid: str
    name: str
    capability: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Computing:
    """How a model is computed.

    ``products``: the type of products; sums, the adapter and the optimizer are fp32. With fp16,
    whose smallest number is 6e-8, the loss is scaled so that small gradients don't become zero.
    ``attention``: of a base that has it, ``eager`` of others. ``fuses``: norms, rotary embedding
    and gated MLP are Liger's kernels. ``widens``: what a 4-bit base has in 16 bits (embeddings,
    norms, output layer) is cast to fp32, and so are the activations between its layers.
    """

    products: Products
    attention: Attention
    fuses: bool
    widens: bool


def choose_computing(
    gpus: Sequence[Gpu], *, has_liger: bool, on_cpu: Callable[[], CpuType]
) -> Computing:
    """Choose how to train on ``gpus``; the oldest decides, since all compute the same way.

    Without one: in the type that ``on_cpu`` returns, with eager attention, whose backward pass is
    faster there than the fused one's.
    On CUDA: torch's fused attention, never flash attention, which takes no custom mask while ours
    masks pairs of tokens; and Liger's kernels except for its loss: ours is weighted and computed
    on the answers' positions only. With bf16 nothing is cast to fp32, as in TRL: an 8B Llama's
    embeddings and output layer would take 2.1 GB more. Activations in fp16 would overflow.
    """
    if not gpus:
        return Computing(on_cpu(), "eager", fuses=False, widens=True)
    oldest = min(gpu.capability for gpu in gpus)
    half = half_type(oldest)
    return Computing(half, "sdpa", fuses=has_liger and oldest >= VOLTA, widens=half == "fp16")


def half_type(capability: tuple[int, int]) -> Half:
    """Return the 16-bit type in which a GPU of this compute capability multiplies fast."""
    return "bf16" if capability >= AMPERE else "fp16"


def best_computing() -> Computing:
    """Choose how to train on this machine's GPUs with the installed packages."""
    has_liger = importlib.util.find_spec(LIGER) is not None
    return choose_computing(cuda_devices(), has_liger=has_liger, on_cpu=cpu_products.cpu_type)


def trained_in() -> str:
    """Return the type of a training's products here, as ``best_computing``, mostly without torch.

    Of a CPU also what was measured.
    """
    known = [gpu.capability for gpu in computing_graphics()]
    if not known:
        return cpu_products.describe()
    return " or ".join(sorted({half_type(one) for one in known if one}) or ["bf16", "fp16"])


def cuda_devices() -> tuple[Gpu, ...]:
    """List the CUDA devices that this process may use, in torch's order; empty without CUDA."""
    import torch

    devices = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return tuple(Gpu(str(gpu.uuid), gpu.name, (gpu.major, gpu.minor)) for gpu in devices)


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
"""Libraries whose version may change trained weights."""


def describe_environment() -> dict[str, Json]:
    """Return Python, system, device and library versions, for a manifest."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device_name(),
        "products": trained_in(),
        "libraries": {name: _library_version(name) for name in LIBRARIES},
    }


def device_name(proc: Path = Path("/proc")) -> str:
    """Return the driver's names of the GPUs, or the processor's name."""
    return ", ".join(driver_gpus(proc)) or machine.processor(proc)


def driver_gpus(proc: Path = Path("/proc")) -> list[str]:
    """List the driver's names of all the machine's NVIDIA GPUs, visible to this process or not."""
    return [
        model.group(1)
        for file in sorted(proc.glob("driver/nvidia/gpus/*/information"))
        if (model := re.search(r"^Model:\s*(.+)$", file.read_text(), re.MULTILINE))
    ]


@dataclass(frozen=True, slots=True)
class Graphics:
    """An NVIDIA GPU by its driver's name; ``capability`` is CUDA's, ``None`` if unknown."""

    name: str
    capability: tuple[int, int] | None


QUERY = ("nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader")


def graphics(dev: Path = Path("/dev"), proc: Path = Path("/proc")) -> list[Graphics]:
    """List the machine's NVIDIA GPUs, without loading torch; empty if there are none."""
    if not any((dev / driver).exists() for driver in ("nvidiactl", "dxg")):
        return []
    with suppress(OSError, subprocess.SubprocessError):
        result = subprocess.run(QUERY, capture_output=True, text=True, check=True, timeout=30)
        if gpus := read_graphics(result.stdout):
            return gpus
    return [Graphics(name, None) for name in driver_gpus(proc)] or [Graphics("GPU", None)]


def computing_graphics(
    dev: Path = Path("/dev"), proc: Path = Path("/proc"), torch: Path | None = None
) -> list[Graphics]:
    """List the GPUs of ``graphics`` on which torch, in its folder, computes: none without CUDA."""
    spec = importlib.util.find_spec("torch")
    if torch is None and spec is not None and spec.origin is not None:
        torch = Path(spec.origin).parent
    build = torch / "version.py" if torch is not None else None
    text = build.read_text() if build is not None and build.is_file() else ""
    return [] if re.search(r"^cuda\b.*= None$", text, re.MULTILINE) else graphics(dev, proc)


def graphics_memory(dev: Path = Path("/dev")) -> int | None:
    """Return the bytes of the smallest NVIDIA GPU's memory; ``None`` where there is no GPU."""
    if not (dev / "nvidiactl").exists():
        return None
    query = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        output = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30)
        return min(int(line) * 2**20 for line in output.stdout.split())
    return None


def read_graphics(output: str) -> list[Graphics]:
    """Parse the output of ``QUERY``, one GPU per line, such as ``NVIDIA H100, 9.0``."""
    rows = re.findall(r"^(.+), (\d+)\.(\d+)$", output, re.MULTILINE)
    return [Graphics(name, (int(major), int(minor))) for name, major, minor in rows]


def child_processes() -> list[psutil.Process]:
    """List this process's descendants."""
    return psutil.Process().children(recursive=True)


def cpu_seconds(workers: Sequence[psutil.Process] = ()) -> float:
    """Return the CPU seconds of this process, its ended children and ``workers``."""
    ended = os.times()
    seconds = time.process_time() + ended.children_user + ended.children_system
    for worker in workers:
        with suppress(psutil.NoSuchProcess):
            times = worker.cpu_times()
            seconds += times.user + times.system
    return seconds


def measure_work(*, cpu: float, wall: float, gpus_held: int) -> Work:
    """Return work in seconds of GPU time if GPUs were held, otherwise in seconds of core time."""
    if gpus_held:
        return Work(round(wall * gpus_held, 3), "GPU", max(gpus_held, len(driver_gpus())))
    return Work(round(cpu, 3), "core", machine.cores())


def _library_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
