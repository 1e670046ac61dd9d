"""AdaLoRA's allocator beside an optimizer that skips steps."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from components.models import base
from components.train import peft_model
from components.train.plan import estimate
from components.train.rank_allocation import RankAllocation
from tests.support.training_methods import RECIPES


def test_after_a_first_step_that_fp16_skips_the_optimizer_steps_with_the_planned_memory(
    model: Path,
):
    bare, _ = base.load(model, "bf16", for_training=True)
    recipe = RECIPES["adalora"]
    adapted = peft_model.attach_trainable(bare, recipe)
    trained = [weight for weight in adapted.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    allocation = RankAllocation(adapted, recipe.adalora)
    state: Any = SimpleNamespace(global_step=0, max_steps=8)
    unused: Any = None
    allocation.on_train_begin(unused, state, unused, optimizer=optimizer)
    for weight in trained:
        weight.grad = torch.full_like(weight, torch.inf)
    allocation.on_optimizer_step(unused, state, unused, optimizer=optimizer)  # but no step
    before = trained[0].detach().clone()
    for weight in trained:
        weight.grad = torch.ones_like(weight)
    state.global_step = 1
    optimizer.step()
    allocation.on_optimizer_step(unused, state, unused, optimizer=optimizer)
    assert not torch.equal(trained[0], before)
    assert "sensitivity" in optimizer.state[trained[0]]
    allocator = allocation.allocator
    scores = (allocator.ipt, allocator.exp_avg_ipt, allocator.exp_avg_unc)
    held = sum(tensor.nbytes for by_name in scores for tensor in by_name.values())
    moments = ("exp_avg", "exp_avg_sq")
    held += sum(optimizer.state[weight][name].nbytes for weight in trained for name in moments)
    weights = sum(weight.nbytes for weight in trained)
    assert estimate.optimizer_state(weights, allocates=True) == held
