"""What a model makes of some tokens."""

from pathlib import Path

import torch

IDS = torch.tensor([[1, 60, 70, 80, 90, 2, 33]])


def adapted(base: Path, adapter: Path) -> torch.Tensor:
    """Compute an adapter's logits on its base, in fp32."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    bare = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return of(PeftModel.from_pretrained(bare, str(adapter)))


def of(model: torch.nn.Module) -> torch.Tensor:
    """Compute a model's logits."""
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits
