"""What a training holds in memory, part by part, in bytes."""

from dataclasses import dataclass

from components.train.plan.parameters import Parameters
from components.train.recipe import Recipe

BLOCK, SECOND_BLOCK = 64, 256
"""Weights that share a constant, and constants that share one of their own: QLoRA,
arXiv:2305.14314, section 3."""

CONTEXT = 500_000_000
"""What CUDA itself takes on a GPU: an assumption, not measured here. The free memory that a GPU
reports has it taken off already."""

BESIDE = 200_000_000
"""What a training on a CPU holds beside its tensors: libraries that are loaded when it begins (50
MB), kernels' scratch, and what the allocator keeps of what was freed. It is the middle of what was
measured in four settings of a model of 30 layers (``tests/benchmarks/plan.py``), 170 to 330 MB."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one step makes and drops again: ``activations`` and ``logits`` at their highest.

    ``gradient_sets`` is how often the gradients are there at once at the end of the step,
    ``sets_before`` how often already while the activations are.
    """

    activations: int
    logits: int
    gradient_sets: int = 1
    sets_before: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
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


def on_gpu(parameters: Parameters, step: Step, recipe: Recipe, *, rest: int) -> Memory:
    """Add up a training on a GPU, where 4-bit weights stay as they are.

    Each is written out in bf16 while its layer computes; the largest of them counts as the rest.
    """
    return _memory(
        parameters,
        step,
        recipe,
        weights=packed_weights(parameters.quantized),
        constants=quantization_constants(
            parameters.quantized, double=recipe.bnb_4bit_use_double_quant
        ),
        rest=rest + 2 * parameters.largest,
    )


def on_cpu(parameters: Parameters, step: Step, recipe: Recipe, *, rest: int) -> Memory:
    """Add up a training on a CPU, where 4-bit weights are written out in bf16 once."""
    written_out = 2 * parameters.quantized
    return _memory(parameters, step, recipe, weights=written_out, constants=0, rest=rest + BESIDE)


def _memory(
    parameters: Parameters,
    step: Step,
    recipe: Recipe,
    *,
    weights: int,
    constants: int,
    rest: int,
) -> Memory:
    return Memory(
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
