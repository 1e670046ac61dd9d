"""The fused LoRA layer has PEFT's outputs and gradients."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from components.extensions.cpu import kernels
from components.models import base
from tests.support import tiny


def adapted(folder: Path) -> PeftModel:
    """Return a model in fp32 with an adapter that changes its answers."""
    bare, _ = base.load(folder, "fp32", for_training=True)
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    made = get_peft_model(bare, config)
    assert isinstance(made, PeftModel)
    return made


def run(model: PeftModel) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return a loss and its gradients."""
    ids = torch.arange(5, 45)[None]
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss, {
        name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None
    }


def test_loss_and_gradients_are_pefts(tmp_path: Path):
    tiny.build(tmp_path)
    loss, expected = run(adapted(tmp_path))
    model = adapted(tmp_path)
    kernels.use_fused_layers(model)
    fused_loss, gradients = run(model)
    assert fused_loss.item() == pytest.approx(loss.item(), rel=1e-5)
    assert gradients.keys() == expected.keys()
    assert gradients
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5)


def test_the_fused_layer_and_its_gradients_are_exact():
    torch.manual_seed(0)
    x, weight, bias, a, b = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 3, 5), (7, 5), (7,), (2, 5), (7, 2))
    )

    def layer(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return kernels.LoraLinear.apply(x, weight.detach(), bias.detach(), a, b, 0.5)

    assert torch.autograd.gradcheck(layer, (x, a, b))
    plain = torch.nn.functional.linear(x, weight, bias) + 0.5 * (x @ a.T) @ b.T
    torch.testing.assert_close(layer(x, a, b), plain)


def test_a_disabled_adapter_leaves_the_base(tmp_path: Path):
    tiny.build(tmp_path)
    model, ids = adapted(tmp_path), torch.arange(5, 45)[None]
    bare, _ = base.load(tmp_path, "fp32", for_training=True)
    kernels.use_fused_layers(model)
    with torch.no_grad(), model.disable_adapter():
        torch.testing.assert_close(model(input_ids=ids).logits, bare(input_ids=ids).logits)
