"""A recipe with incompatible settings is refused with the reason and the remedy."""

import pytest

from components.train.recipe import Recipe
from tests.support.training_methods import RECIPES


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        pytest.param(
            {"target_modules": []}, "names no module: leave it out", id="nothing-gets-an-adapter"
        ),
        pytest.param(
            {"method": "full"},
            "method full can't train 4-bit weights, which a step would not change: set "
            "bnb_4bit_quant_type to null",
            id="full-in-4-bits",
        ),
        pytest.param(
            {"method": "full", "bnb_4bit_quant_type": None, "r": 8, "use_dora": True},
            "method full trains every weight as it is: leave out r, use_dora",
            id="full-with-a-rank",
        ),
        pytest.param(
            {"method": "adalora", "use_rslora": True},
            "method adalora has its own ranks and first weights: leave out use_rslora",
            id="adalora-with-rslora",
        ),
        pytest.param(
            {"adalora": {"target_r": 4}},
            "adalora belongs to method adalora, found method lora",
            id="adalora-settings-of-lora",
        ),
        pytest.param(
            {"method": "adalora", "adalora": {"init_r": 8}},
            "AdaLoRA prunes from init_r to target_r: expected init_r 8 to be above target_r 8",
            id="nothing-to-prune",
        ),
        pytest.param(
            {"init_lora_weights": "loftq", "bnb_4bit_quant_type": None},
            "init_lora_weights loftq compensates the quantization error: set bnb_4bit_quant_type "
            "to nf4 or fp4, or take pissa",
            id="loftq-of-nothing",
        ),
        pytest.param(
            {"warm_start": True, "init_lora_weights": "eva"},
            "warm_start takes the first weights from the champion: leave out init_lora_weights, "
            "found eva",
            id="two-first-weights",
        ),
        pytest.param(
            {"fsdp": "full_shard", "method": "full", "bnb_4bit_quant_type": None},
            "which every process holds: leave out fsdp, or take method lora",
            id="split-of-what-is-trained-whole",
        ),
        pytest.param(
            {"fsdp": "full_shard", "init_lora_weights": "eva"},
            "with fsdp no process has the whole base, which init_lora_weights eva needs",
            id="split-of-what-looks-at-the-rows",
        ),
        pytest.param(
            {"warm_start": True, "method": "adalora"},
            "warm_start requires method lora or full: pruned ranks can't be pruned again",
            id="pruned-twice",
        ),
    ],
)
def test_incompatible_settings_are_refused(wrong: dict[str, object], sentence: str):
    with pytest.raises(ValueError, match="Value error") as refused:
        Recipe.model_validate(wrong)
    assert sentence in str(refused.value)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_numpy_refuses_is_refused_before_a_training(seed: int):
    with pytest.raises(ValueError, match="seed"):
        Recipe(seed=seed)


@pytest.mark.parametrize("method", RECIPES)
def test_a_recipe_round_trips_through_json(method: str):
    recipe = RECIPES[method]
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize(
    ("knobs", "precision"),
    [
        pytest.param({}, "nf4", id="default"),
        pytest.param({"bnb_4bit_quant_type": "fp4"}, "fp4", id="fp4"),
        pytest.param({"bnb_4bit_quant_type": None}, "bf16", id="none"),
    ],
)
def test_the_quantization_determines_the_precision(knobs: dict[str, object], precision: str):
    assert Recipe.model_validate(knobs).precision == precision
