"""Detaching an adapter restores its base exactly."""

from pathlib import Path

import pytest
import torch

from components.models import base
from components.train import peft_model
from components.train.recipe import Recipe
from tests.support import tiny

INPUT_IDS = torch.tensor([[5, 60, 7, 80, 9, 100]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("base"))


def save_adapter(folder: Path, out: Path, **knobs: object) -> Path:
    """Save an adapter whose weights all differ from their initial values."""
    recipe = Recipe.model_validate(knobs)
    model, _ = base.load(folder, recipe.precision, for_training=True)
    adapted = peft_model.attach_trainable(model, recipe)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.1)
    peft_model.save_adapter(adapted, out)
    return out


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=INPUT_IDS).logits


@pytest.mark.parametrize(
    "knobs",
    [
        pytest.param({}, id="lora"),
        pytest.param({"method": "full", "bnb_4bit_quant_type": None}, id="full"),
    ],
)
def test_the_base_answers_as_before_after_an_adapter_is_detached(
    folder: Path, tmp_path: Path, knobs: dict[str, object]
):
    model, _ = base.load(folder, "fp32", for_training=False)
    before, types = logits(model), [type(module) for module in model.modules()]
    adapted = base.attach_adapter(model, save_adapter(folder, tmp_path / "a", **knobs))
    assert not torch.allclose(logits(adapted), before, atol=0.1)
    adapted.unload()
    assert torch.equal(logits(model), before)
    assert [type(module) for module in model.modules()] == types


def test_dora_on_a_4_bit_base_repeats_its_answers(folder: Path, tmp_path: Path):
    adapter = save_adapter(folder, tmp_path / "a", use_dora=True)
    trained, _ = base.load(folder, "nf4", for_training=True)
    base.dequantize(trained)
    torch.nn.Module.float(trained)  # transformers' own float() refuses quantized models
    expected = logits(base.attach_adapter(trained.eval(), adapter).eval())
    model, _ = base.load(folder, "nf4", for_training=False)
    adapted = base.attach_adapter(model, adapter).eval()
    torch.testing.assert_close(logits(adapted), expected, rtol=0.05, atol=0.05)
    assert torch.equal(logits(adapted), logits(adapted))
