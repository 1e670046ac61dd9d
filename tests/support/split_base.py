"""Split a 4-bit base over two processes: ``python -m tests.support.split_base BASE OUT``.

On a CPU a training writes 4-bit weights out before it splits them; here they travel as they are, as
they would between GPUs.
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from torch import distributed

from components.models import base as bases
from components.train import process_group
from tests.support.train_together import both, held_bytes, join


def adapted(folder: Path) -> PeftModel:
    """Return a base in NF4 with an adapter that changes its answers."""
    bare, _ = bases.load(folder, "nf4", for_training=True)
    bare = prepare_model_for_kbit_training(bare, use_gradient_checkpointing=False)
    torch.manual_seed(0)
    made = get_peft_model(
        bare, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    )
    assert isinstance(made, PeftModel)
    return made


def learn(model: PeftModel) -> tuple[float, list[torch.Tensor]]:
    """Return a loss and its gradients."""
    ids = torch.arange(5, 65)[None]
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.item(), [weight.grad for weight in model.parameters() if weight.grad is not None]


def split(folder: Path, out: Path, rank: int, port: int) -> None:
    """Train as one of two processes; write its results to its own file."""
    join(rank, port)
    distributed.init_process_group("gloo")
    whole, parts = adapted(folder), adapted(folder)
    process_group.shard_base(parts, torch.device("cpu"))
    loss, gradients = learn(whole)
    again = [learn(parts)]
    parts.zero_grad()
    again.append(learn(parts))  # what was gathered is gone, and gathered anew
    equal = [
        torch.equal(a, b) for _, others in again for a, b in zip(gradients, others, strict=True)
    ]
    results = {
        "losses": [loss, *(loss_again for loss_again, _ in again)],
        "gradients_equal": all(equal) and len(equal) > 0,
        "held": held_bytes(parts),
        "whole": held_bytes(whole),
    }
    (out / str(rank)).write_text(json.dumps(results))
    distributed.destroy_process_group()


if __name__ == "__main__":
    both(split, Path(sys.argv[1]), Path(sys.argv[2]))
