"""Multiply by weights that lie in blocks, as oneDNN reads them fastest, on a CPU in fp32.

A step of 16 rows multiplies 1.4 times as fast by them as by weights in rows, with two threads 1.6
times, and a LoRA is added into the copy, so that nothing more is multiplied for it. The model
itself is left as it is, to the bit: what is in blocks is a copy, in as much memory again.
Torch takes a thread a core, and all of them wait for the slowest after each operation; on a machine
that others use, too, that made an evaluation several times slower than one thread alone. So as many
threads compute as are fastest here and now.
Imported late, since it loads torch.
"""

import math
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import cache, cached_property
from statistics import median
from typing import TYPE_CHECKING, TypeAlias, cast

import psutil
import torch  # noqa: TID253 - this module is itself imported late
from torch import nn  # noqa: TID253 - as above

if TYPE_CHECKING:
    from components.evaluate.prefix_cache.forward import Model

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


TIMED_SHAPE = (64, 576, 1536)
"""Rows, and a small model's layer: 57 million multiplications, a millisecond or so."""

TIMES = 24
"""Products in a row that are timed together, so that one that has to wait is seen."""

ROUNDS = 3
"""Of all counts in turn; their medians are compared."""

WORTH = 0.9
"""What fewer threads must bring a time down to, to be taken: a virtual machine's two cores are at
times one, for a second or more, and that must not cost a minute at half the speed."""

KEPT = 60.0
"""Seconds for which a choice holds: what else a machine does changes, and short tasks are many."""


def fastest(seconds: Mapping[int, float]) -> int:
    """Choose of the timed counts: all threads, unless fewer are clearly faster."""
    taken = max(seconds)
    for count in sorted(seconds, reverse=True):
        if seconds[count] < WORTH * seconds[taken]:
            taken = count
    return taken


class Threads:
    """How many threads are fastest, timed anew when that is a minute ago."""

    def __init__(self) -> None:
        self._fastest, self._timed_at = 1, -math.inf

    @contextmanager
    def chosen(self) -> Generator[int]:
        """Compute with the fastest number, at most as many as torch has; then as before.

        Timing takes a fifth of a second with two threads.
        """
        allowed = torch.get_num_threads()
        try:
            if allowed > 1:
                if time.monotonic() - self._timed_at > KEPT:
                    self._fastest, self._timed_at = fastest(_timed(allowed)), time.monotonic()
                torch.set_num_threads(self._fastest)
            yield torch.get_num_threads()
        finally:
            torch.set_num_threads(allowed)


def _timed(most: int) -> dict[int, float]:
    """Time each of ``most`` threads, half of them, a quarter, down to one; in seconds."""
    counts = [most >> halvings for halvings in range(most.bit_length())]
    rows, inner, outer = TIMED_SHAPE
    these, weight = torch.ones(rows, inner), torch.ones(outer, inner)
    taken: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(ROUNDS):
        for count in counts:
            torch.set_num_threads(count)
            torch.nn.functional.linear(these, weight)
            started = time.perf_counter()
            for _ in range(TIMES):
                torch.nn.functional.linear(these, weight)
            taken[count].append(time.perf_counter() - started)
    return {count: median(seconds) for count, seconds in taken.items()}
