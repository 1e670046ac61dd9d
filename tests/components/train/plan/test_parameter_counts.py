"""Counts without weights equal those of a training."""

from pathlib import Path

import pytest
from transformers import AutoConfig

from components.models import base, cpu_products
from components.models.device import best_computing
from components.train import peft_model
from components.train.plan import trace
from components.train.recipe import Recipe

NAMED = {"target_modules": ["q_proj", "down_proj"]}


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(Recipe(), id="all linear layers"),
        pytest.param(Recipe(use_dora=True, bnb_4bit_quant_type="fp4"), id="DoRA in FP4"),
        pytest.param(Recipe(init_lora_weights="pissa"), id="PiSSA, which holds a half"),
        pytest.param(Recipe(method="adalora"), id="AdaLoRA"),
        pytest.param(Recipe(method="full", bnb_4bit_quant_type=None), id="in full"),
        pytest.param(Recipe(r=3, layers_to_transform=[1], **NAMED), id="chosen layers"),  # pyright: ignore[reportArgumentType]
    ],
)
@pytest.mark.parametrize("products", ["bf16", "fp32"])
def test_a_base_without_weights_has_the_counts_of_the_trained_one(
    model: Path, recipe: Recipe, products: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(cpu_products.VARIABLE, products)
    _, counted = trace.adapted_without_weights(
        AutoConfig.from_pretrained(model), recipe, best_computing()
    )
    loaded, _ = base.load(model, recipe.precision, for_training=True)
    real = list(peft_model.attach_trainable(loaded, recipe).parameters())
    trained = [weight for weight in real if weight.requires_grad]
    assert counted.total == sum(weight.numel() for weight in real)
    assert counted.trainable == sum(weight.numel() for weight in trained)
    assert counted.trained_bytes == sum(weight.nbytes for weight in trained)
    frozen = sum(weight.nbytes for weight in real if not weight.requires_grad)
    assert counted.unquantized_bytes + counted.written_bytes == frozen


def test_the_low_rank_matrices_sum_to_r_times_d_plus_k(model: Path):
    _, counted = trace.adapted_without_weights(
        AutoConfig.from_pretrained(model), Recipe(r=4), best_computing()
    )
    hidden, narrow, wide = 64, 32, 128  # of the tiny model; it has 2 layers
    attention = 2 * (hidden + hidden) + 2 * (narrow + hidden)
    assert counted.trainable == 2 * 4 * (attention + 3 * (hidden + wide))
    assert counted.trainable == sum(shape.numbers for shape in counted.low_rank)
    assert counted.others == 0
    shapes = {shape.module: (shape.count, shape.r, shape.d, shape.k) for shape in counted.low_rank}
    assert shapes["v_proj"] == (2, 4, narrow, hidden)
    assert shapes["down_proj"] == (2, 4, hidden, wide)
