"""The formulas match the memory of bitsandbytes and AdamW, and the peak."""

import pytest
import torch
from bitsandbytes.functional import quantize_4bit

from components.train.plan import estimate
from components.train.plan.estimate import ParameterCounts, StepMemory, TrainingMemory
from components.train.recipe import Recipe


@pytest.mark.parametrize("shape", [(512, 384), (40, 25)], ids=["whole blocks", "a part of one"])
def test_a_quantized_weight_has_the_bytes_of_bitsandbytes(shape: tuple[int, int]):
    packed, state = quantize_4bit(torch.randn(shape), compress_statistics=True, quant_type="nf4")
    numbers = shape[0] * shape[1]
    assert state.absmax is not None
    assert state.state2 is not None
    held = state.absmax.nbytes + state.state2.absmax.nbytes
    assert estimate.packed_weights(numbers) == packed.nbytes
    assert estimate.quantization_constants(numbers) == held


def test_the_constants_have_the_papers_bits_per_weight():
    weights = 64 * 256 * 1000
    bits = estimate.quantization_constants(weights) * 8 / weights
    assert bits == pytest.approx(0.127, abs=5e-4)


def test_adamw_holds_two_moments_of_each_weight():
    weight = torch.nn.Parameter(torch.ones(1000))
    optimizer = torch.optim.AdamW([weight])
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    moments = [state for state in optimizer.state[weight].values() if state.numel() > 1]
    assert estimate.optimizer_state(weight.nbytes) == sum(state.nbytes for state in moments)


def test_preferences_that_do_not_start_as_the_base_keep_the_first_weights_as_its_reference():
    counts = ParameterCounts(
        total=100, trainable=10, low_rank=(), quantized=0, largest=0, unquantized_bytes=180,
        trained_bytes=40, written_bytes=0,
    )  # fmt: skip
    adapters: list[int] = []
    for knobs in (
        {"objective": "dpo"},
        {"objective": "dpo", "warm_start": True},
        {"objective": "kto", "init_lora_weights": "loftq"},
        {"warm_start": True},
    ):
        recipe = Recipe.model_validate(knobs)
        step = StepMemory(activations=0, logits=0)
        adapters.append(estimate.training_memory(counts, step, recipe, "gpu", rest=0).adapters)
    assert adapters == [40, 80, 80, 40]


@pytest.mark.parametrize(
    ("activations", "gradients", "peak"),
    [
        pytest.param(500, 90, 400 + 500 + 10 + 5, id="long rows"),
        pytest.param(50, 90, 400 + 90, id="many weights"),
    ],
)
def test_activations_and_gradients_do_not_peak_together(
    activations: int, gradients: int, peak: int
):
    held = TrainingMemory(
        weights=100,
        constants=10,
        unquantized=90,
        teacher=0,
        adapters=50,
        optimizer=100,
        gradients=gradients,
        activations=activations,
        logits=10,
        gradients_before=5,
        rest=50,
    )
    assert held.peak == peak
