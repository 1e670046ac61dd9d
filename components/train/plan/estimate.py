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
class ParameterCounts:
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


def count_parameters(adapted: "Module", quantized: dict[str, int]) -> ParameterCounts:
    """Count the parameters of a base with its adapter, both of any device.

    Args:
        adapted: The base as it computes: its 4-bit weights written out in bf16.
        quantized: The size of each weight that the base holds in 4 bits.
    """
    weights = list(adapted.parameters())
    trained = [weight for weight in weights if weight.requires_grad]
    frozen = sum(weight.nbytes for weight in weights if not weight.requires_grad)
    return ParameterCounts(
        total=sum(weight.numel() for weight in weights),
        trainable=sum(weight.numel() for weight in trained),
        low_rank=_find_low_rank(adapted),
        quantized=sum(quantized.values()),
        largest=max(quantized.values(), default=0),
        unquantized_bytes=frozen - 2 * sum(quantized.values()),
        trained_bytes=sum(weight.nbytes for weight in trained),
    )


def _find_low_rank(adapted: "Module") -> tuple[LowRank, ...]:
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


BLOCK, SECOND_BLOCK = 64, 256
"""Weights that share a constant, and constants that share one of their own: QLoRA,
arXiv:2305.14314, section 3."""

CUDA_CONTEXT = 500_000_000
"""What CUDA itself takes on a GPU: an assumption, not measured here. The free memory that a GPU
reports has it taken off already."""

CPU_BASELINE = 200_000_000
"""What a training on a CPU holds beside its tensors: libraries that are loaded when it begins (50
MB), kernels' scratch, and what the allocator keeps of what was freed. It is the middle of what was
measured in four settings of a model of 30 layers (``tests/benchmarks/plan.py``), 170 to 330 MB."""


@dataclass(frozen=True, slots=True)
class StepMemory:
    """What one step makes and drops again: ``activations`` and ``logits`` at their highest.

    ``gradient_sets`` is how often the gradients are there at once at the end of the step,
    ``sets_before`` how often already while the activations are.
    """

    activations: int
    logits: int
    gradient_sets: int = 1
    sets_before: int = 0


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """The parts, in bytes.

    ``weights`` are those that the recipe has in 4 bits, with their ``constants``; ``unquantized``
    what of the base is not (embeddings, norms, the head); ``rest`` what else the process holds.
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
        """The most that is held at once.

        Going back through the layers, activations go as gradients come, both evenly, so that the
        most is at one end or the other.
        """
        lasting = self.weights + self.constants + self.unquantized + self.teacher
        lasting += self.adapters + self.optimizer + self.rest
        forward = self.activations + self.logits + self.gradients_before
        return lasting + max(forward, self.gradients)


def packed_weights(numbers: int) -> int:
    """Give the bytes of so many weights in 4 bits."""
    return numbers // 2


def quantization_constants(numbers: int, *, double: bool) -> int:
    """Give the bytes of the constants of so many 4-bit weights.

    One fp32 number for each block of 64 weights; with double quantization it has 8 bits, and 256 of
    them share an fp32 number: 0.5 and 0.127 bits a weight (arXiv:2305.14314, section 3).
    """
    blocks = -(-numbers // BLOCK)
    return blocks + 4 * -(-blocks // SECOND_BLOCK) if double else 4 * blocks


def optimizer_state(trained: int, *, allocates: bool = False) -> int:
    """Give the bytes of AdamW's state: two moments of each weight in the weight's own type.

    Kingma and Ba, arXiv:1412.6980, algorithm 1. AdaLoRA ``allocates`` ranks by two more means of
    each, its sensitivity and how uncertain that is (arXiv:2303.10512, section 3.2).
    """
    return (4 if allocates else 2) * trained


def memory_on_gpu(
    parameters: ParameterCounts, step: StepMemory, recipe: Recipe, *, rest: int
) -> TrainingMemory:
    """Add up a training on a GPU, where 4-bit weights stay as they are.

    Each is written out in bf16 while its layer computes; the largest of them counts as the rest.
    """
    return _add_up(
        parameters,
        step,
        recipe,
        weights=packed_weights(parameters.quantized),
        constants=quantization_constants(
            parameters.quantized, double=recipe.bnb_4bit_use_double_quant
        ),
        rest=rest + 2 * parameters.largest,
    )


def memory_on_cpu(
    parameters: ParameterCounts, step: StepMemory, recipe: Recipe, *, rest: int
) -> TrainingMemory:
    """Add up a training on a CPU, where 4-bit weights are written out in bf16 once."""
    written_out = 2 * parameters.quantized
    return _add_up(
        parameters, step, recipe, weights=written_out, constants=0, rest=rest + CPU_BASELINE
    )


def _add_up(
    parameters: ParameterCounts,
    step: StepMemory,
    recipe: Recipe,
    *,
    weights: int,
    constants: int,
    rest: int,
) -> TrainingMemory:
    return TrainingMemory(
        weights=weights,
        constants=constants,
        unquantized=parameters.unquantized_bytes,
        teacher=parameters.teacher_bytes,
        adapters=parameters.trained_bytes,
        optimizer=optimizer_state(parameters.trained_bytes, allocates=recipe.method == "adalora"),
        gradients=parameters.trained_bytes * step.gradient_sets,
        activations=step.activations,
        logits=step.logits,
        gradients_before=parameters.trained_bytes * step.sets_before,
        rest=rest,
    )


@dataclass(frozen=True, slots=True)
class TrainingWork:
    """A training's steps and tokens.

    ``tokens`` counts requests and answers as often as they are learned; ``steps`` says of each
    step how many it computes, which are fewer where rows begin alike.
    """

    tokens: int
    steps: tuple[int, ...]

    @property
    def computed(self) -> int:
        """The tokens of all steps, those in common counted once."""
        return sum(self.steps)


def training_steps(
    examples: Sequence[TrainingExample], recipe: Recipe
) -> list[list[TrainingExample]]:
    """Put the examples of all epochs into steps, in training order.

    A part of an epoch is rounded up to a whole step, as in ``transformers.Trainer``.
    """
    size = recipe.step_size
    total = ceil(recipe.num_train_epochs * ceil(len(examples) / size))
    found: list[list[TrainingExample]] = []
    for epoch in range(ceil(recipe.num_train_epochs)):
        ordered = packing.order_examples(examples, recipe, epoch)
        found += [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return found[:total]


def computed_tokens(step: Sequence[TrainingExample]) -> int:
    """Count the tokens of a step, those that its rows begin with in common once."""
    return packing.packed_size([row.input_ids for example in step for row in example.rows])


def measure_work(steps: Sequence[Sequence[TrainingExample]]) -> TrainingWork:
    """Count what all steps of a training compute."""
    tokens = (len(row.input_ids) for step in steps for example in step for row in example.rows)
    return TrainingWork(sum(tokens), tuple(computed_tokens(step) for step in steps))


def expected_seconds(work: TrainingWork, done: int, seconds: float) -> float:
    """Tell from the pace of some steps how long all of them will take.

    Args:
        work: What there is to compute.
        done: How many steps were made, of which the first was a warm-up; at least 2.
        seconds: What those after the first took.
    """
    return work.computed * seconds / sum(work.steps[1:done])


Device: TypeAlias = Literal["gpu", "cpu"]


@dataclass(frozen=True, slots=True)
class BatchOption:
    """A way to split a step into batches, and what the heaviest step takes."""

    batch: int
    accumulation: int
    checkpointing: bool
    memory: TrainingMemory

    @property
    def knobs(self) -> dict[str, int | bool]:
        """The recipe's knobs for it."""
        return {
            "per_device_train_batch_size": self.batch,
            "gradient_accumulation_steps": self.accumulation,
            "gradient_checkpointing": self.checkpointing,
        }


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What a training will take.

    ``asked`` is the recipe's own split, ``largest`` the one of the largest batch that fits in
    ``free`` bytes, with activations computed anew only where nothing else does; ``None`` where
    nothing fits. ``is_elsewhere``: it was planned for the GPU of another machine. The
    heaviest step computes ``heaviest_tokens``; ``longest_row`` is of all.
    """

    device: Device
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
        """Whether the recipe's own split does."""
        return self.asked.memory.peak <= self.free

    @property
    def advised(self) -> BatchOption | None:
        """The recipe's own split where it fits, else the largest that does."""
        return self.asked if self.fits else self.largest


PLAN_JSON = TypeAdapter(TrainingPlan)
