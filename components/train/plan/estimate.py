"""The estimate of a training: parameters, bytes by part, steps and tokens; without torch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import TypeAdapter

from components.train import packing
from components.train.recipe import Recipe
from components.train.training_examples import TrainingExample

if TYPE_CHECKING:
    from torch.nn import Module


Device: TypeAlias = Literal["gpu", "cpu"]


@dataclass(frozen=True, slots=True)
class LowRank:
    """``count`` adapters of one shape, ``[d, r]`` times ``[r, k]``."""

    module: str
    count: int
    r: int
    d: int
    k: int

    @property
    def numbers(self) -> int:
        """Their parameters, the sum of r(d + k) (LoRA, arXiv:2106.09685, section 4)."""
        return self.count * self.r * (self.d + self.k)


@dataclass(frozen=True, slots=True)
class ParameterCounts:
    """Numbers of parameters, without a distillation's teacher, and bytes of those not in 4 bits.

    ``quantized`` is the number of parameters in 4 bits, ``largest`` that of the largest such layer.
    """

    total: int
    trainable: int
    low_rank: tuple[LowRank, ...]
    quantized: int
    largest: int
    unquantized_bytes: int
    trained_bytes: int
    written_bytes: int
    """Of the quantized ones, written out in the type of the products."""

    teacher_bytes: int = 0

    @property
    def fraction(self) -> float:
        """The trainable share."""
        return self.trainable / self.total

    @property
    def others(self) -> int:
        """Trainable parameters outside low-rank matrices: magnitudes, singular values, copies."""
        return self.trainable - sum(shape.numbers for shape in self.low_rank)


def count_parameters(
    adapted: "Module", quantized: dict[str, int], itemsize: int
) -> ParameterCounts:
    """Count the parameters of a base with its adapter, on any device.

    Args:
        adapted: The base with its adapter, its 4-bit weights dequantized.
        quantized: The number of parameters of each 4-bit weight.
        itemsize: The bytes of a dequantized parameter.
    """
    weights = list(adapted.parameters())
    trained = [weight for weight in weights if weight.requires_grad]
    frozen = sum(weight.nbytes for weight in weights if not weight.requires_grad)
    written = itemsize * sum(quantized.values())
    return ParameterCounts(
        total=sum(weight.numel() for weight in weights),
        trainable=sum(weight.numel() for weight in trained),
        low_rank=_find_low_rank(adapted),
        quantized=sum(quantized.values()),
        largest=max(quantized.values(), default=0),
        unquantized_bytes=frozen - written,
        trained_bytes=sum(weight.nbytes for weight in trained),
        written_bytes=written,
    )


def _find_low_rank(adapted: "Module") -> tuple[LowRank, ...]:
    shapes: Counter[tuple[str, int, int, int]] = Counter()
    sizes = {name: tuple(weight.shape) for name, weight in adapted.named_parameters()}
    for name, shape in sizes.items():
        layer, kind, _ = name.partition(".lora_A")
        if kind:
            r, k = shape
            d = next(
                size[0] for other, size in sizes.items() if other.startswith(layer + ".lora_B")
            )
            shapes[layer.rpartition(".")[2], r, d, k] += 1
    return tuple(LowRank(module, n, r, d, k) for (module, r, d, k), n in shapes.items())


BLOCK, SECOND_BLOCK = 64, 256
"""Weights per constant, and constants per second constant (QLoRA, arXiv:2305.14314, section 3)."""

CUDA_CONTEXT = 500_000_000
"""Bytes that CUDA itself takes: an assumption, not measured. A GPU's own figure of free memory
excludes them already."""

CPU_BASELINE = 200_000_000
"""Bytes of a CPU training besides its tensors: libraries loaded at its start (50 MB), kernels'
scratch, and freed memory that the allocator keeps. Within the 170 to 330 MB measured in four
settings of a model of 30 layers (``tests/benchmarks/plan.py``)."""


@dataclass(frozen=True, slots=True)
class StepMemory:
    """A step's transient memory: the peak bytes of ``activations`` and ``logits``.

    ``gradient_sets`` is the number of copies of the gradients at the end of the step,
    ``sets_before`` while there are activations.
    """

    activations: int
    logits: int
    gradient_sets: int = 1
    sets_before: int = 0


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes by part.

    ``weights`` are the quantized ones, ``constants`` their quantization's, ``unquantized`` the
    base's others (embeddings, norms, the head).
    """

    weights: int
    constants: int
    unquantized: int
    teacher: int
    adapters: int
    optimizer: int
    gradients: int
    activations: int
    logits: int
    gradients_before: int
    rest: int

    @property
    def peak(self) -> int:
        """The peak bytes.

        The backward pass frees activations as it allocates gradients, both evenly, so the peak is
        at one end or the other.
        """
        lasting = self.weights + self.constants + self.unquantized + self.teacher
        lasting += self.adapters + self.optimizer + self.rest
        forward = self.activations + self.logits + self.gradients_before
        return lasting + max(forward, self.gradients)


def packed_weights(numbers: int) -> int:
    """Return the bytes of this many weights in 4 bits."""
    return numbers // 2


def quantization_constants(numbers: int) -> int:
    """Return the bytes of the constants of this many 4-bit weights.

    With double quantization one number of 8 bits per block of 64 weights, and 256 of them share an
    fp32 number: 0.127 bits per weight (arXiv:2305.14314, section 3).
    """
    blocks = -(-numbers // BLOCK)
    return blocks + 4 * -(-blocks // SECOND_BLOCK)


def optimizer_state(trained: int, *, allocates: bool = False) -> int:
    """Return the bytes of AdamW's state: two moments of each weight in the weight's own type.

    Kingma and Ba, arXiv:1412.6980, algorithm 1. AdaLoRA ``allocates`` ranks by each weight's
    sensitivity, of which it keeps the last one, the mean and the mean uncertainty
    (arXiv:2303.10512, section 3.2).
    """
    return (5 if allocates else 2) * trained


def training_memory(
    parameters: ParameterCounts, step: StepMemory, recipe: Recipe, device: Device, *, rest: int
) -> TrainingMemory:
    """Return the memory of a training; ``rest`` is what the process holds before it begins."""
    if device == "gpu":
        weights = packed_weights(parameters.quantized)
        constants = quantization_constants(parameters.quantized)
        rest += 2 * parameters.largest  # each is dequantized to bf16 while its layer computes
    else:
        weights, constants = parameters.written_bytes, 0  # dequantized once
        rest += CPU_BASELINE
    adapters = parameters.trained_bytes
    starts_as_base = recipe.starts_as_base and not recipe.warm_start
    if recipe.objective.kind in ("dpo", "kto") and not starts_as_base:
        adapters *= 2  # the first weights are the reference
    return TrainingMemory(
        weights=weights,
        constants=constants,
        unquantized=parameters.unquantized_bytes,
        teacher=parameters.teacher_bytes,
        adapters=adapters,
        optimizer=optimizer_state(parameters.trained_bytes, allocates=recipe.method == "adalora"),
        gradients=parameters.trained_bytes * step.gradient_sets,
        activations=step.activations,
        logits=step.logits,
        gradients_before=parameters.trained_bytes * step.sets_before,
        rest=rest,
    )


@dataclass(frozen=True, slots=True)
class TrainingWork:
    """A training's tokens, prompts and answers in all epochs.

    ``steps`` has the tokens that each step computes: shared prefixes count once.
    """

    tokens: int
    steps: tuple[int, ...]

    @property
    def computed(self) -> int:
        """The computed tokens of all steps."""
        return sum(self.steps)


def training_steps(
    examples: Sequence[TrainingExample], recipe: Recipe
) -> list[list[TrainingExample]]:
    """Return the examples of each step in all epochs, in training order.

    A partial epoch is rounded up to a whole step, as in ``transformers.Trainer``.
    """
    size = recipe.step_size
    total = ceil(recipe.num_train_epochs * ceil(len(examples) / size))
    steps: list[list[TrainingExample]] = []
    for epoch in range(ceil(recipe.num_train_epochs)):
        ordered = packing.order_examples(examples, recipe, epoch)
        steps += [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return steps[:total]


def computed_tokens(step: Sequence[TrainingExample]) -> int:
    """Count the tokens that a step computes; shared prefixes count once."""
    return packing.packed_size([row.input_ids for example in step for row in example.rows])


def measure_work(steps: Sequence[Sequence[TrainingExample]]) -> TrainingWork:
    """Count the tokens of a training's steps."""
    tokens = (len(row.input_ids) for step in steps for example in step for row in example.rows)
    return TrainingWork(sum(tokens), tuple(computed_tokens(step) for step in steps))


def expected_seconds(work: TrainingWork, done: int, seconds: float) -> float:
    """Estimate the seconds of all steps from the pace of the first ones.

    Args:
        work: The whole training's.
        done: The number of steps done, at least 2; the first was a warm-up.
        seconds: The duration of those after the first.
    """
    return work.computed * seconds / sum(work.steps[1:done])


@dataclass(frozen=True, slots=True)
class BatchOption:
    """A split of a step into batches, and the memory of the step with the most tokens."""

    batch: int
    accumulation: int
    checkpointing: bool
    memory: TrainingMemory

    @property
    def knobs(self) -> dict[str, int | bool]:
        """The recipe's settings for it."""
        return {
            "per_device_train_batch_size": self.batch,
            "gradient_accumulation_steps": self.accumulation,
            "gradient_checkpointing": self.checkpointing,
        }


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """A training's memory and work.

    ``asked`` is the recipe's own split, ``largest`` that of the largest batch that fits into
    ``free`` bytes, with gradient checkpointing only if nothing fits without; ``None`` if nothing
    fits. ``is_elsewhere``: planned for another machine's GPU. ``heaviest_tokens`` are those of the
    step with the most, ``longest_row`` those of the longest row. ``products``: the type in which it
    multiplies here, in words.
    """

    device: Device
    products: str
    is_elsewhere: bool
    free: int
    parameters: ParameterCounts
    work: TrainingWork
    heaviest_tokens: int
    longest_row: int
    asked: BatchOption
    largest: BatchOption | None

    @property
    def fits(self) -> bool:
        """Whether the recipe's own split fits."""
        return self.asked.memory.peak <= self.free

    @property
    def advised(self) -> BatchOption | None:
        """The recipe's own split if it fits, else the largest that does."""
        return self.asked if self.fits else self.largest


PLAN_JSON = TypeAdapter(TrainingPlan)
