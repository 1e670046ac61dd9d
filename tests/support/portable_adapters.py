"""Train an adapter, and hold what plain PEFT makes of it against the model that was trained."""

from pathlib import Path

import torch

from components.models import base
from components.schema import Precision
from components.train import fit
from components.train.recipe import Recipe

ASKED = torch.tensor([[5, 60, 7, 80, 9, 100]])


def train(
    model: Path, snapshot: Path, folder: Path, recipe: Recipe, asked: torch.Tensor = ASKED
) -> tuple[list[float], torch.Tensor]:
    """Train, and require that plain PEFT loads the same model.

    Returns:
        The loss of each step, and the logits of what was asked.
    """
    losses: list[float] = []
    trained, tokenizer = base.load(model, recipe.precision, for_training=True)
    fit.fit(
        snapshot,
        (trained, tokenizer),
        folder,
        recipe,
        report=lambda progress: losses.append(progress.figures["loss"]),
    )
    trained.set_attn_implementation("eager")  # instead of that for packed sequences
    with torch.no_grad():
        expected = torch.nn.Module.float(trained)(input_ids=asked).logits
    logits = plain(model, recipe.precision, folder, asked)
    # 4-bit weights are held in bf16 while they train on a CPU
    tolerance = 1e-3 if recipe.bnb_4bit_quant_type is None else 5e-2
    assert (logits - expected).abs().max() < tolerance * expected.abs().max()
    return losses, expected


def plain(
    model: Path, precision: Precision, adapter: Path | None, asked: torch.Tensor = ASKED
) -> torch.Tensor:
    """Load base and adapter without our code, and return the logits."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=precision, bnb_4bit_use_double_quant=True
    )
    bare = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, quantization_config=None if precision == "bf16" else config
    ).train()  # in eval() bitsandbytes repacks the weights, which DoRA in PEFT then misreads
    whole = bare if adapter is None else PeftModel.from_pretrained(bare, str(adapter)).train()
    with torch.no_grad():
        return whole(input_ids=asked).logits
