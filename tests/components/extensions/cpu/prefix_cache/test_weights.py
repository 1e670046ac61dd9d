"""Blocked weights multiply like the model's own, with its adapter, and are removed afterwards."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from components.extensions.cpu.prefix_cache import weights
from components.extensions.cpu.prefix_cache.weights import Blocked
from components.models import base

TOKENS = torch.arange(5, 45).reshape(2, 20)


@torch.inference_mode()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=TOKENS).logits


@pytest.mark.parametrize(
    "worn",
    [
        pytest.param(None, id="no-adapter"),
        pytest.param({}, id="lora"),
        pytest.param({"use_rslora": True, "lora_alpha": 3}, id="rslora"),
        pytest.param({"use_dora": True}, id="dora"),
        pytest.param(
            {"target_modules": ["q_proj"], "modules_to_save": ["down_proj"]},
            id="layers-trained-whole",
        ),
        pytest.param({"bias": "lora_only", "lora_bias": True}, id="biases"),
        pytest.param({"target_modules": ["q_proj"], "layers_to_transform": [1]}, id="one-layer"),
    ],
)
def test_blocked_weights_give_the_same_logits_and_are_removed_afterwards(
    tiny_base: Path, worn: dict[str, Any] | None
):
    model, _ = base.load(tiny_base, "fp32", for_training=False)
    bare = logits(model)
    if worn is not None:
        torch.manual_seed(0)
        settings: dict[str, Any] = {"target_modules": "all-linear", "init_lora_weights": False}
        model = get_peft_model(model, LoraConfig(r=4, **settings | worn)).eval()
    before, weights = logits(model), {name: w.clone() for name, w in model.named_parameters()}
    with Blocked(model) as entered:
        within = logits(entered)
    assert torch.allclose(within, before, rtol=1e-4, atol=1e-4)
    assert worn is None or not torch.allclose(within, bare, rtol=1e-2, atol=1e-2)
    assert torch.equal(logits(model), before)
    assert all(torch.equal(weight, weights[name]) for name, weight in model.named_parameters())


def test_a_base_answers_as_before_after_its_adapter_used_blocked_weights(
    tiny_base: Path, adapters: dict[str, Path]
):
    model, _ = base.load(tiny_base, "fp32", for_training=False)
    bare = logits(model)
    worn = base.attach_adapter(model, adapters["champion"])
    with Blocked(worn):
        assert not torch.allclose(logits(worn), bare, rtol=1e-2, atol=1e-2)
    worn.unload()
    assert torch.equal(logits(model), bare)


def test_a_disabled_adapter_stays_disabled_with_blocked_weights(
    tiny_base: Path, adapters: dict[str, Path]
):
    model, _ = base.load(tiny_base, "fp32", for_training=False)
    bare = logits(model)
    worn = base.attach_adapter(model, adapters["champion"])
    with worn.disable_adapter(), Blocked(worn):
        assert torch.allclose(logits(worn), bare, rtol=1e-4, atol=1e-4)


def test_a_16_bit_model_uses_its_own_weights(tiny_base: Path):
    model, _ = base.load(tiny_base, "bf16", for_training=False)
    before = logits(model)
    with Blocked(model):
        assert torch.equal(logits(model), before)


def test_an_error_with_blocked_weights_restores_the_model(tiny_base: Path):
    model, _ = base.load(tiny_base, "fp32", for_training=False)
    before = logits(model)
    with pytest.raises(RuntimeError, match="in the midst"), Blocked(model):
        raise RuntimeError("in the midst")
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (64, 65), (127, 31)])
def test_blocked_weights_of_odd_shapes_multiply_like_rows(shape: tuple[int, int]):
    torch.manual_seed(0)
    layer = torch.nn.Linear(*shape)
    model: Any = torch.nn.Sequential(layer).requires_grad_(False)
    rows = torch.randn(5, shape[0])
    expected = model(rows)
    with Blocked(model) as within:
        assert torch.allclose(within(rows), expected, rtol=1e-5, atol=1e-5)


def test_without_one_dnn_the_models_own_weights_are_used(
    monkeypatch: pytest.MonkeyPatch,
):
    model: Any = torch.nn.Sequential(torch.nn.Linear(8, 8)).requires_grad_(False)
    assert weights.suits(model) == weights.works()
    weights.works.cache_clear()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not weights.suits(model)
    weights.works.cache_clear()
