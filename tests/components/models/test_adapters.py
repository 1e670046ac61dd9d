"""An adapter is put on a base and taken off again without a trace."""

from pathlib import Path

import pytest
import torch

from components.models import base
from components.train import peft_model
from components.train.recipe import Recipe
from tests.support import tiny

ASKED = torch.tensor([[5, 60, 7, 80, 9, 100]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("base"))


def made(folder: Path, out: Path, **knobs: object) -> Path:
    """Save an adapter whose weights are none that it begins with."""
    recipe = Recipe.model_validate(knobs)
    model, _ = base.load(folder, recipe.precision, for_training=True)
    worn = peft_model.attach_trainable(model, recipe)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in worn.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.1)
    peft_model.save_adapter(worn, out)
    return out


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ASKED).logits


@pytest.mark.parametrize(
    "knobs",
    [
        pytest.param({}, id="lora"),
        pytest.param({"modules_to_save": ["embed_tokens", "norm"]}, id="modules-to-save"),
        pytest.param({"method": "full", "bnb_4bit_quant_type": None}, id="full"),
    ],
)
def test_the_base_answers_as_before_once_an_adapter_is_off(
    folder: Path, tmp_path: Path, knobs: dict[str, object]
):
    model, _ = base.load(folder, "fp32", for_training=False)
    before, kinds = logits(model), [type(one) for one in model.modules()]
    worn = base.attach_adapter(model, made(folder, tmp_path / "a", **knobs))
    assert not torch.allclose(logits(worn), before, atol=0.1)
    base.detach_adapter(worn)
    assert torch.equal(logits(model), before)
    assert [type(one) for one in model.modules()] == kinds


def test_dora_answers_alike_the_second_time_on_a_4_bit_base(folder: Path, tmp_path: Path):
    made_adapter = made(folder, tmp_path / "a", use_dora=True)
    trained, _ = base.load(folder, "nf4", for_training=True)
    base.dequantize(trained)
    torch.nn.Module.float(trained)  # transformers refuses it of what was quantized
    expected = logits(base.attach_adapter(trained.eval(), made_adapter).eval())
    model, _ = base.load(folder, "nf4", for_training=False)
    worn = base.attach_adapter(model, made_adapter).eval()
    torch.testing.assert_close(logits(worn), expected, rtol=0.05, atol=0.05)
    assert torch.equal(logits(worn), logits(worn))
