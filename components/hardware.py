"""The GPUs that this process may use, and how a model is best computed on them."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

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


def computing(gpus: Sequence[Gpu], *, has_liger: bool) -> Computing:
    """Choose how to train on ``gpus``; the oldest of them decides, since they work as one.

    On a CPU: bf16, and plain attention, whose gradient is faster there than that of the fused one.
    On CUDA: torch's fused attention, never flash attention, which takes no mask of its own while
    our sequences say for each pair of tokens whether one sees the other; and Liger's kernels, but
    for its loss: ours is weighted and computed on the answers' positions only.
    """
    if not gpus:
        return Computing("bf16", "eager", fuses=False)
    oldest = min(gpu.capability for gpu in gpus)
    return Computing(half_of(oldest), "sdpa", fuses=has_liger and oldest >= VOLTA)


def half_of(capability: tuple[int, int]) -> Half:
    """Name the 16-bit type in which a GPU of this compute capability multiplies fast."""
    return "bf16" if capability >= AMPERE else "fp16"


def found() -> Computing:
    """Choose for this machine, of its GPUs and the packages that are installed."""
    return computing(gpus(), has_liger=importlib.util.find_spec(LIGER) is not None)


def gpus() -> tuple[Gpu, ...]:
    """List the CUDA devices that this process may use, in torch's order; none on a CPU."""
    import torch

    found = (torch.cuda.get_device_properties(one) for one in range(torch.cuda.device_count()))
    return tuple(Gpu(str(one.uuid), one.name, (one.major, one.minor)) for one in found)
