"""Pick how a training computes on a CPU; on CUDA everything stays PyTorch's and PEFT's.

Only this module imports ``components.train.cpu``: without that package and this module, and the
four calls of it, trainings on a CPU take longer.
Imported late, since it loads torch.
"""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, cast

import torch  # noqa: TID253 - this module is itself imported late

from components.train.cpu import attention, kernels
from components.train.cpu.kernels import Lanes

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from components.train.micro_batches import MicroBatch


class CpuEngine:
    """What a training on a CPU computes with."""

    def prepare(self, adapted: "PeftModel", *, holds_head: bool) -> int:
        """Have a model compute by this engine, where it can; the rest of it stays as it is.

        Args:
            adapted: A base with its adapter.
            holds_head: Whether to hold the output layer's weight in bf16, too.

        Returns:
            The bytes that are held besides the model's own.
        """
        attention.use(cast("PreTrainedModel", adapted.get_base_model()))
        kernels.use(adapted)
        return kernels.hold_head(adapted) if holds_head else 0

    def inputs(self, model: torch.nn.Module, share: "MicroBatch") -> dict[str, Any]:
        """Return what a model that was prepared takes with a share of a batch."""
        return attention.given(model, share)

    def lanes(self, model: torch.nn.Module) -> int:
        """Count the threads on which shares of a batch can be computed apart."""
        return kernels.count(model)

    def opened(self, lanes: int) -> AbstractContextManager[Lanes | None]:
        """Open so many lanes."""
        return kernels.opened(lanes)


def for_device(device: str) -> CpuEngine | None:
    """Return the engine for what trains on a type of device; ``None`` for all but CPUs."""
    return CpuEngine() if device == "cpu" else None
