"""Count what a training trains, and what it holds still."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True, slots=True)
class LowRank:
    """Adapters of one shape: ``r`` columns of length ``d`` times ``r`` rows of length ``k``."""

    module: str
    count: int
    r: int
    d: int
    k: int

    @property
    def numbers(self) -> int:
        """The sum r(d + k) over all of them: LoRA, arXiv:2106.09685, section 4."""
        return self.count * self.r * (self.d + self.k)


@dataclass(frozen=True, slots=True)
class Parameters:
    """How many there are, and the bytes of those that are not in 4 bits.

    ``total`` and ``trainable`` count numbers, as do ``quantized``, those in 4 bits, and
    ``largest``, those of the largest layer among them. A distillation's teacher is not among them.
    """

    total: int
    trainable: int
    low_rank: tuple[LowRank, ...]
    quantized: int
    largest: int
    unquantized_bytes: int
    trained_bytes: int
    teacher_bytes: int = 0

    @property
    def fraction(self) -> float:
        """The trainable share of all."""
        return self.trainable / self.total

    @property
    def others(self) -> int:
        """Trainable numbers that are no low-rank matrix: magnitudes, singular values, modules."""
        return self.trainable - sum(one.numbers for one in self.low_rank)


def count(adapted: "Module", quantized: dict[str, int]) -> Parameters:
    """Count the parameters of a base with its adapter, both of any device.

    Args:
        adapted: The base as it computes: its 4-bit weights written out in bf16.
        quantized: The size of each weight that the base holds in 4 bits.
    """
    weights = list(adapted.parameters())
    trained = [weight for weight in weights if weight.requires_grad]
    frozen = sum(weight.nbytes for weight in weights if not weight.requires_grad)
    return Parameters(
        total=sum(weight.numel() for weight in weights),
        trainable=sum(weight.numel() for weight in trained),
        low_rank=_low_rank(adapted),
        quantized=sum(quantized.values()),
        largest=max(quantized.values(), default=0),
        unquantized_bytes=frozen - 2 * sum(quantized.values()),
        trained_bytes=sum(weight.nbytes for weight in trained),
    )


def _low_rank(adapted: "Module") -> tuple[LowRank, ...]:
    """Find the pairs of matrices that PEFT put beside layers, in the order of their layers."""
    shapes: Counter[tuple[str, int, int, int]] = Counter()
    sizes = {name: tuple(weight.shape) for name, weight in adapted.named_parameters()}
    for name, shape in sizes.items():
        layer, kind, _ = name.partition(".lora_A")
        if kind:
            r, k = shape
            d = next(size[0] for one, size in sizes.items() if one.startswith(layer + ".lora_B"))
            shapes[layer.rpartition(".")[2], r, d, k] += 1
    return tuple(LowRank(module, n, r, d, k) for (module, r, d, k), n in shapes.items())
