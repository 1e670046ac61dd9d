"""Choose a base and a batch that fit into memory; the worker's price."""

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import cast

from components.schema import Json
from components.train.plan import estimate
from components.train.recipe import Worker


def batch_splits(step_size: int) -> list[int]:
    """List the batch sizes that divide a step of this many rows, in ascending order."""
    return [size for size in range(1, step_size + 1) if step_size % size == 0]


def largest_batch(step_size: int, need: Callable[[int], int], free: int) -> int | None:
    """Return the largest batch that fits; ``None`` if not even one row does.

    Args:
        step_size: Rows per optimizer step.
        need: Returns the bytes for a batch size, which increase with it; expensive.
        free: The available bytes.
    """
    *smaller, largest = batch_splits(step_size)
    if need(largest) <= free:  # the most frequent case
        return largest
    fitting = bisect_right(smaller, free, key=need)
    return smaller[fitting - 1] if fitting else None


def training_cost(seconds: float, worker: Worker) -> float | None:
    """Return the price of this time in the currency of ``price_per_hour``."""
    return None if worker.price_per_hour is None else worker.price_per_hour * seconds / 3600


ADAPTER_SHARE = 0.02
"""Trained parameters as a share of the weights: a high estimate for all linear layers at rank
16."""

BATCH_TOKENS = 4 * 1024  # the recipe's default batch of examples of the default ``max_length``

LAYER_BYTES = 34
"""A layer's bytes of activations per token and hidden unit (arXiv:2205.05198, section 4.1), without
attention scores."""

LIBRARIES = 1_500_000_000  # bytes of torch and its kernels

LARGEST_ON_CPU = 1_000_000_000  # parameters of a model that a CPU trains in hours, not in days

LONGEST_HEADER = 100_000_000  # bytes of a file's header, as in safetensors' own reader

IN_16_BITS = ("embed", "lm_head", "wte", ".experts.")
"""Parts of the names of weights that are never in 4 bits: bitsandbytes quantizes linear layers, and
transformers merges a layer's experts into one weight."""


@dataclass(frozen=True, slots=True)
class TrainableBase:
    """A pretrained model's folder, and the estimated bytes of memory that training it takes."""

    path: Path
    parameters: int
    on_cpu: int
    on_gpu: int


@dataclass(frozen=True, slots=True)
class SuggestedBase:
    """A model to download if there is none, and its number of parameters."""

    name: str
    parameters: int


SUGGESTED = (
    SuggestedBase("Qwen/Qwen3-0.6B", 600_000_000),
    SuggestedBase("Qwen/Qwen3-1.7B", 1_700_000_000),
    SuggestedBase("Qwen/Qwen3-4B", 4_000_000_000),
    SuggestedBase("Qwen/Qwen3-8B", 8_200_000_000),
)
"""Models under Apache-2.0 with a tool-calling template, the smallest first."""


def read(folder: Path) -> TrainableBase | None:
    """Read a model's folder; ``None`` unless it has a whole safetensors model with a tokenizer."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights or not (folder / "config.json").is_file():
        return None
    if not (folder / "tokenizer_config.json").is_file():
        return None
    try:
        sizes = {name: size for file in weights for name, size in _sizes(file).items()}
        config: Json = json.loads((folder / "config.json").read_text())
    except ValueError:  # a download broke off
        return None
    total = sum(sizes.values())
    if not total:
        return None
    unquantized = sum(size for name, size in sizes.items() if any(e in name for e in IN_16_BITS))
    activations = BATCH_TOKENS * LAYER_BYTES * _width(config)
    return _estimated(folder, total, unquantized, activations)


def choose(folders: Iterable[Path], *, free: int, is_gpu: bool) -> TrainableBase | None:
    """Choose the largest base that fits into ``free`` bytes of memory; ``None`` if none does."""
    bases = [base for base in map(read, folders) if base is not None]
    fitting = [
        base
        for base in bases
        if (base.on_gpu if is_gpu else base.on_cpu) <= free
        and (is_gpu or base.parameters <= LARGEST_ON_CPU)
    ]
    return max(fitting, key=lambda base: (base.parameters, str(base.path)), default=None)


def suggest(*, free: int, is_gpu: bool) -> SuggestedBase:
    """Suggest the largest model to download that fits; the smallest if none does."""
    fitting = [
        suggested for suggested in SUGGESTED if _fits(suggested.parameters, free, is_gpu=is_gpu)
    ]
    return fitting[-1] if fitting else SUGGESTED[0]


def _fits(parameters: int, free: int, *, is_gpu: bool) -> bool:
    base = _estimated(Path(), parameters, parameters // 5, activations=4_000_000_000)
    if is_gpu:
        return base.on_gpu <= free
    return base.on_cpu <= free and parameters <= LARGEST_ON_CPU


def _estimated(folder: Path, total: int, unquantized: int, activations: int) -> TrainableBase:
    quantized = total - unquantized
    trained = int(ADAPTER_SHARE * quantized)
    lasting = 2 * unquantized + 8 * trained + estimate.optimizer_state(4 * trained)
    packed = estimate.packed_weights(quantized)
    packed += estimate.quantization_constants(quantized)
    rest = lasting + activations + LIBRARIES
    return TrainableBase(folder, total, on_cpu=4 * quantized + rest, on_gpu=packed + rest)


def _sizes(file: Path) -> dict[str, int]:
    # the header alone: safetensors' own reader needs torch or numpy to return shapes
    with file.open("rb") as content:
        length = min(int.from_bytes(content.read(8), "little"), LONGEST_HEADER)
        header = cast("Mapping[str, Mapping[str, list[int]]]", json.loads(content.read(length)))
    tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
    return {name: prod(tensor["shape"]) for name, tensor in tensors.items()}


def _width(config: Json) -> int:
    """Return layers times hidden units; 0 if the config doesn't have them by their usual names."""
    match config:
        case {"num_hidden_layers": int(layers), "hidden_size": int(hidden)}:
            return layers * hidden
        case {"text_config": dict(inner)}:
            return _width(inner)
        case _:
            return 0
