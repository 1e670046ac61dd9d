"""Multiply by weights that lie in blocks, as oneDNN reads them fastest, on a CPU in fp32.

A step of 16 rows multiplies 1.4 times as fast by them as by weights in rows, with two threads 1.6
times, and a LoRA is added into the copy, so that nothing more is multiplied for it. The model
itself is left as it is, to the bit: what is in blocks is a copy, in as much memory again.
Imported late, since it loads torch.
"""

from collections.abc import Callable
from functools import cache, cached_property
from typing import TYPE_CHECKING, TypeAlias, cast

import psutil
import torch  # noqa: TID253 - this module is itself imported late
from torch import nn  # noqa: TID253 - as above

if TYPE_CHECKING:
    from components.evaluate.reading import Model

Multiply: TypeAlias = Callable[[torch.Tensor], torch.Tensor]

MOST_MEMORY = 1 / 2
"""Of the memory that is free: what the copy may take; for more, weights are read where they are."""

ROWS = 64
"""The rows that blocks are laid out for: between a step of a few answers and a pack of prompts."""


class Blocked:
    """Within it, a model multiplies by copies of its weights; outside, by its own.

    They are made when it is first entered, of the weights as they are then, the LoRA added; none
    where blocks don't help.
    """

    def __init__(self, model: "Model") -> None:
        self.model = model

    @cached_property
    def _layers(self) -> "list[tuple[nn.Module, Multiply]]":
        return _lay(self.model) if suits(self.model) else []

    def __enter__(self) -> "Model":
        """Give the model, which multiplies by the copies now."""
        for layer, multiply in self._layers:
            layer.forward = multiply
        return self.model

    def __exit__(self, *_: object) -> None:
        """Have the model multiply by its own weights again."""
        for layer, _multiply in self._layers:
            vars(layer).pop("forward", None)


def suits(model: "Model") -> bool:
    """Tell whether a model computes in fp32 on a CPU with oneDNN, with room for a copy of it."""
    weights = [one.weight for one in model.modules() if type(one) is nn.Linear]
    return (
        works()
        and all(one.device.type == "cpu" and one.dtype == torch.float32 for one in weights)
        and sum(one.nbytes for one in weights) < MOST_MEMORY * psutil.virtual_memory().available
    )


@cache
@torch.inference_mode()
def works() -> bool:
    """Tell whether this machine's oneDNN multiplies by blocks as torch multiplies, by trying.

    Builds of torch differ in what they have of it, and processors in what it does; some round fp32
    to bf16 where they are told to be fast.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    rows, weight = torch.linspace(-1, 1, 3 * 65).reshape(3, 65), torch.eye(33, 65) + 0.1
    try:
        found = _multiplying(weight, None)(rows)
    except (AttributeError, RuntimeError):  # it has no such operation, or not for such a weight
        return False
    return torch.allclose(found, nn.functional.linear(rows, weight), rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def _lay(model: "Model") -> list[tuple[nn.Module, Multiply]]:
    """Copy weights layer by layer, so that only one is there in rows, too."""
    laid: list[tuple[nn.Module, Multiply]] = []
    within: set[nn.Module] = set()
    for layer in model.modules():
        weight = _weight(layer) if layer not in within and "forward" not in vars(layer) else None
        if weight is not None:
            within.update(layer.modules())
            laid.append((layer, _multiplying(weight, _bias(layer))))
    return laid


def _weight(layer: nn.Module) -> torch.Tensor | None:
    """Give a linear layer's weight, with its LoRA if it wears that and nothing else."""
    from peft.tuners.lora import Linear

    if type(layer) is nn.Linear:
        return layer.weight
    if type(layer) is not Linear or layer.merged or layer.disable_adapters:
        return None
    worn = [name for name in layer.active_adapters if name in layer.lora_A]
    inner = layer.base_layer
    if type(inner) is not nn.Linear or any(
        name in layer.lora_variant or layer.lora_bias[name] for name in worn
    ):
        return None
    return sum((layer.get_delta_weight(name) for name in worn), start=inner.weight)


def _bias(layer: nn.Module) -> torch.Tensor | None:
    return cast("torch.Tensor | None", getattr(layer, "base_layer", layer).bias)


def _multiplying(weight: torch.Tensor, bias: torch.Tensor | None) -> Multiply:
    """Copy a weight into blocks; give what multiplies by them."""
    # What torch's own compiler uses when it freezes a model for a CPU.
    blocks = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
    multiply = torch.ops.mkldnn._linear_pointwise

    def forward(x: torch.Tensor) -> torch.Tensor:
        return multiply(x, blocks, bias, "none", [], "")

    return forward
