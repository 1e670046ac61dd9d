"""The port to kernels for one kind of device; elsewhere all layers are PyTorch's and PEFT's.

An extension has those for a CPU; without it, trainings there only take longer.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from components.train.micro_batches import MicroBatch

MODULES = {"cpu": "components.extensions.cpu.kernels"}
"""The kernels of each type of device that has its own."""


class GradientThreads(Protocol):
    """Data-parallel threads that live as long as the training."""

    @property
    def pool(self) -> Executor:
        """What computes one micro-batch in each thread."""
        ...

    def backward(
        self,
        loss_of: "Callable[[MicroBatch], torch.Tensor]",
        micro_batches: "Sequence[MicroBatch]",
        weights: "Sequence[torch.Tensor]",
    ) -> "torch.Tensor":
        """Add the gradients of the batch's loss to the weights' ``grad`` and return the loss."""
        ...


class DeviceEngine(Protocol):
    """The kernels of a training, a module."""

    def prepare(self, adapted: "PeftModel", *, caches_head: bool) -> int:
        """Replace the layers that there are kernels for, in place.

        With ``caches_head``, cache the output layer's weight in bf16; return the cache's bytes.
        """
        ...

    def inputs(self, model: "torch.nn.Module", micro_batch: "MicroBatch") -> dict[str, Any]:
        """Return the additional keyword arguments of a prepared model's forward pass."""
        ...

    def thread_count(self, model: "torch.nn.Module") -> int:
        """Return how many micro-batches can be computed in parallel."""
        ...

    def open_threads(self, count: int) -> AbstractContextManager[GradientThreads | None]:
        """Open ``count`` data-parallel threads; ``None`` for one."""
        ...


def for_device(device: str) -> DeviceEngine | None:
    """Return the engine for a device type; ``None`` where all kernels are PyTorch's."""
    module = MODULES.get(device)
    return cast("DeviceEngine", import_module(module)) if module else None
