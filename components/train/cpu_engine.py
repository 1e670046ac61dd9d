"""Select the CPU kernels for a training on a CPU; on CUDA everything stays PyTorch's and PEFT's.

Only this module imports ``components.train.cpu``. Both can be deleted with the four calls of this
module; CPU trainings then take longer.
"""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, cast

import torch  # noqa: TID253 - this module is itself imported late

from components.train.cpu import attention, kernels
from components.train.cpu.kernels import CpuThreads

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from components.train.micro_batches import MicroBatch


class CpuEngine:
    """The CPU kernels of a training."""

    def prepare(self, adapted: "PeftModel", *, caches_head: bool) -> int:
        """Replace the layers that this engine has kernels for, in place.

        With ``caches_head``, cache the output layer's weight in bf16; return the cache's bytes.
        """
        attention.use_block_attention(cast("PreTrainedModel", adapted.get_base_model()))
        kernels.use_fused_layers(adapted)
        return kernels.cache_head(adapted) if caches_head else 0

    def inputs(self, model: torch.nn.Module, micro_batch: "MicroBatch") -> dict[str, Any]:
        """Return the additional keyword arguments of a prepared model's forward pass."""
        return attention.forward_kwargs(model, micro_batch)

    def thread_count(self, model: torch.nn.Module) -> int:
        """Return how many micro-batches can be computed in parallel."""
        return kernels.thread_count(model)

    def open_threads(self, count: int) -> AbstractContextManager[CpuThreads | None]:
        """Open ``count`` data-parallel threads; ``None`` for one."""
        return kernels.open_threads(count)


def for_device(device: str) -> CpuEngine | None:
    """Return the engine for a device type; ``None`` for all but ``cpu``."""
    return CpuEngine() if device == "cpu" else None
