"""Models with random weights at the shapes of public ones, and rows to train them on."""

import random
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit, Params4bit
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen3Config

from components.schema import Answer, Call
from tests.support import tiny, training_rows

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

SEED = 0


@dataclass(frozen=True)
class Shape:
    """A model's configuration; ``weights`` are those that a token is multiplied with."""

    config: PretrainedConfig

    @property
    def weights(self) -> int:
        """The weights of all linear layers, the output layer among them."""
        config: Any = self.config
        head = config.head_dim or config.hidden_size // config.num_attention_heads
        queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
        attention = config.hidden_size * (2 * queries + 2 * keys)
        mlp = 3 * config.hidden_size * config.intermediate_size
        head_weights = config.vocab_size * config.hidden_size
        return config.num_hidden_layers * (attention + mlp) + head_weights


def _llama(width: int, inner: int, layers: int, heads: int, keys: int, *, tied: bool) -> Shape:
    return Shape(
        LlamaConfig(
            vocab_size=128256,
            hidden_size=width,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=keys,
            max_position_embeddings=8192,
            tie_word_embeddings=tied,
        )
    )


# Of the models' public config.json.
SHAPES = {
    "1b": _llama(2048, 8192, 16, 32, 8, tied=True),  # Llama-3.2-1B
    "4b": Shape(
        Qwen3Config(
            vocab_size=151936,
            hidden_size=2560,
            intermediate_size=9728,
            num_hidden_layers=36,
            num_attention_heads=32,
            num_key_value_heads=8,
            head_dim=128,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
        )
    ),  # Qwen3-4B
    "8b": _llama(4096, 14336, 32, 32, 8, tied=False),  # Llama-3-8B
    "rehearsal": Shape(
        LlamaConfig(
            vocab_size=512,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=2048,
        )
    ),
}


def build_nf4(shape: Shape) -> torch.nn.Module:
    """Build a base in NF4 with double quantization on the device, as a base of 4 bits is loaded."""
    torch.manual_seed(SEED)
    with torch.device(DEVICE):
        model = AutoModelForCausalLM.from_config(
            shape.config, dtype=torch.bfloat16, attn_implementation=attention()
        )
    for name, layer in list(model.named_modules()):
        if isinstance(layer, torch.nn.Linear) and not name.endswith("lm_head"):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, _quantized(layer))
    vars(model)["is_loaded_in_4bit"] = True  # as from_pretrained sets it
    return model.train()


def attention() -> str:
    """Return transformers' name of the attention that we train with on this device."""
    return "sdpa" if DEVICE == "cuda" else "eager"


def _quantized(layer: torch.nn.Linear) -> Linear4bit:
    quantized = Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=False,
        compute_dtype=torch.bfloat16,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    make: Any = Params4bit
    weight = make(
        layer.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
    )
    quantized.weight = weight.to(DEVICE)
    return quantized


def write_config(shape: Shape, folder: Path) -> Path:
    """Write what a plan reads of a base: its configuration and a tokenizer."""
    shape.config.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def write_rows(
    folder: Path, count: int, *, validation: int = 0, longest: int = 900, shared: int = 0
) -> Path:
    """Write requests of 100 to ``longest`` tokens with a short call as the answer, one byte each.

    Their lengths are spread evenly on a logarithmic scale, as those of logged requests roughly are.
    All begin with the same ``shared`` tokens more.
    """
    draw = random.Random(SEED)
    prefix = _text(random.Random(SEED + 1), shared)
    for side, size in (("train", count), ("validation", validation)):
        if size:
            rows = [
                (prefix + _text(draw, int(100 * (longest / 100) ** draw.random())), (), _call(draw))
                for _ in range(size)
            ]
            training_rows.write(folder, rows, side=side)
    return folder


def _text(draw: random.Random, length: int) -> str:
    return "".join(draw.choices(string.ascii_lowercase + "      ", k=length))


def _call(draw: random.Random) -> Answer:
    name, place = draw.choice(("weather", "route", "order")), draw.choice(("Rome", "Oslo", "Lima"))
    return Answer(calls=(Call(name, {"place": place}),))
