"""Put the adapter on the base, keep it in fp32, and set it to a mean of checkpoints.

Imported late, since it loads torch.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch  # noqa: TID253 - this module is itself imported late
from peft import (  # noqa: TID253 - as above
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    load_peft_weights,
    prepare_model_for_kbit_training,
    set_peft_model_state_dict,
)
from transformers import set_seed  # noqa: TID253 - as above

from components import base as bases
from components.train import attention, fused
from components.train.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def attach(model: "PreTrainedModel", recipe: Recipe) -> PeftModel:
    """Add the untrained adapter, in fp32, to the frozen base."""
    set_seed(recipe.seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=recipe.target_modules,
        layers_to_transform=recipe.layers_to_transform,
    )
    attention.use(model)
    frozen = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    adapted = get_peft_model(frozen, config)
    assert isinstance(adapted, PeftModel)
    if not torch.cuda.is_available():
        bases.dequantize(adapted)
    fused.use(adapted)
    return adapted


def hold_in_fp32(adapted: PeftModel) -> None:
    """Undo TRL's cast: it turns the adapter of a 4-bit base to bf16, where small steps round away.

    A resumed run loads its adapter in fp32, so the cast also kept it from ending where an
    undisturbed one does. Called before the optimizer is made, which holds on to the weights.
    """
    for weight in adapted.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def average(adapted: PeftModel, checkpoints: list[Path]) -> None:
    """Set the adapter to the mean of its weights and those of its checkpoints.

    Averaging the weights of one run's later steps: Izmailov et al., arXiv:1803.05407.
    """
    final = get_peft_model_state_dict(adapted)
    saved = [load_peft_weights(str(one), device="cpu") for one in checkpoints]
    mean = {
        name: torch.stack([weight.cpu(), *(one[name] for one in saved)]).mean(0)
        for name, weight in final.items()
    }
    set_peft_model_state_dict(adapted, mean)
