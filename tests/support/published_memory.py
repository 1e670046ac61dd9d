"""Published figures of what 4-bit training takes, and the shapes of the models that they are of."""

from dataclasses import dataclass

from transformers import LlamaConfig

from components.train.plan import estimate, trace
from components.train.plan.estimate import TrainingMemory
from components.train.recipe import Recipe
from components.train.training_examples import Tokens, TrainingExample

LEAST = 0.8
"""Of LLaMA-Factory's figures, which are rounded to GPU sizes and declared "estimated": a plan is
below them, as it leaves in 16 bits what a base has so."""


@dataclass(frozen=True)
class Figure:
    """A published figure: ``gb`` for a model in 4 bits; ``is_limit`` if it is a GPU's size."""

    source: str
    model: str
    gb: float
    tokens: int
    r: int
    is_limit: bool = False


SHAPES = {
    "LLaMA 7B": (4096, 11008, 32, 32, 32),
    "LLaMA 13B": (5120, 13824, 40, 40, 40),
    "LLaMA 30B": (6656, 17920, 60, 52, 52),
    "LLaMA 65B": (8192, 22016, 80, 64, 64),
    "Llama 2 70B": (8192, 28672, 80, 64, 8),
}
"""Width, width of the MLP, layers, heads, and heads of keys: of their public configs."""

FACTORY = "LLaMA-Factory"
FIGURES = [
    Figure(FACTORY, "LLaMA 7B", 6, tokens=1024, r=8),
    Figure(FACTORY, "LLaMA 13B", 12 * 13 / 14, tokens=1024, r=8),
    Figure(FACTORY, "LLaMA 30B", 24, tokens=1024, r=8),
    Figure(FACTORY, "Llama 2 70B", 48, tokens=1024, r=8),
    Figure("QLoRA", "LLaMA 65B", 48, tokens=512, r=16, is_limit=True),
]
"""LLaMA-Factory's README (4-bit QLoRA), at what its own comparison names: one row of 1,024 tokens,
and its defaults, rank 8 on all linear layers and gradient checkpointing; its 12 GB are for 14B, of
which a model of 13B is taken to need its share. QLoRA, arXiv:2305.14314:
65B "on a single 48GB GPU"; one row of 512 tokens as in its appendix on memory."""


def planned(figure: Figure) -> TrainingMemory:
    """Plan what a figure is of, on a GPU; every token's logits are computed."""
    width, wide, layers, heads, key_heads = SHAPES[figure.model]
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=width,
        intermediate_size=wide,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )
    recipe = Recipe(r=figure.r, per_device_train_batch_size=1, gradient_checkpointing=True)
    row = TrainingExample([Tokens([5] * figure.tokens, figure.tokens - 1, 1.0)], "row")
    parameters, step = trace.step_memory(config, [row], recipe, "gpu")
    return estimate.training_memory(parameters, step, recipe, "gpu", rest=estimate.CUDA_CONTEXT)
