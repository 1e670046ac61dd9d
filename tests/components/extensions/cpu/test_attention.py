"""The CPU's attention and norms have transformers' logits and gradients."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from components.extensions.cpu import attention, kernels
from components.extensions.cpu.kernels import Norm
from components.models import base
from components.train.micro_batches import collate
from components.train.recipe import Orpo
from components.train.sft_trainer import CompletionTrainer
from components.train.training_examples import Tokens
from tests.support.training_rows import taught

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LONG, SHORT = Tokens([5, 6, 7, 8, 9], 2, 1.0), Tokens([10, 11, 12], 1, 3.0)
CHOSEN, REJECTED = Tokens([5, 6, 7, 20, 21], 2, 1.0), Tokens([5, 6, 7, 22], 1, 1.0)


def adapted(folder: Path) -> PeftModel:
    """Return a model in fp32 with an adapter that changes its answers."""
    bare, _ = base.load(folder, "fp32", for_training=True)
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    made = get_peft_model(bare, config)
    assert isinstance(made, PeftModel)
    return made


def learned(model: PeftModel, examples: list[dict[str, Any]], pairs: bool) -> list[torch.Tensor]:
    """Return a batch's loss and its gradients."""
    trainer = CompletionTrainer.__new__(CompletionTrainer)
    if pairs:
        trainer.objective = Orpo()
    loss = trainer.batch_loss(model, collate(examples))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return [loss, *torch.autograd.grad(loss, weights)]


@pytest.mark.parametrize(
    ("examples", "pairs"),
    [
        pytest.param([taught(LONG)], False, id="one row"),
        pytest.param([taught(SHORT), taught(LONG)], False, id="two blocks"),
        pytest.param([taught(LONG), taught(CHOSEN), taught(SHORT)], False, id="rows alike"),
        pytest.param([taught(CHOSEN, REJECTED), taught(SHORT, LONG)], True, id="pairs"),
    ],
)
def test_loss_and_gradients_are_those_of_transformers(
    model: Path, examples: list[dict[str, Any]], pairs: bool
):
    expected = learned(adapted(model), examples, pairs)
    ours = adapted(model)
    attention.use_block_attention(cast("PreTrainedModel", ours.get_base_model()))
    kernels.use_fused_layers(ours)
    for gradient, reference in zip(learned(ours, examples, pairs), expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-5)


def test_a_cached_head_gives_exactly_the_logits_of_mixed_precision(model: Path):
    ids, ours = torch.arange(5, 45)[None], adapted(model)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = ours(input_ids=ids).logits
        kernels.cache_head(ours)
        assert torch.equal(ours(input_ids=ids).logits, before)


def test_the_norm_and_its_gradient_are_exact():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(5, dtype=torch.float64)

    def norm(x: torch.Tensor) -> torch.Tensor:
        return Norm.apply(x, weight, 1e-5, torch.float64)

    assert torch.autograd.gradcheck(norm, (x,))
    torch.testing.assert_close(norm(x), torch.nn.functional.rms_norm(x, (5,), weight, 1e-5))
