"""Which batch fits a worker's memory, and what its time costs."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import Field

from components.schema import Config, Json
from components.train.plan import estimate


class Worker(Config):
    """The machine that trains, where it isn't the one that plans; it changes no adapter."""

    gpu_memory_gb: float | None = Field(default=None, gt=0)
    """Memory of the worker's GPU in GB (10^9 bytes): ``flywheel train --plan`` plans for it, on
    whatever machine; without it for this machine's GPU, or for its main memory if it has none."""

    price_per_hour: float | None = Field(default=None, gt=0)
    """What the worker costs an hour, in your currency: the plan says what the training costs."""


def batch_splits(step_size: int) -> list[int]:
    """List the batch sizes that a step of so many rows can be split into, the smallest first."""
    return [size for size in range(1, step_size + 1) if step_size % size == 0]


def largest_batch(step_size: int, need: Callable[[int], int], free: int) -> int | None:
    """Find the largest batch that fits; ``None`` if not even one row does.

    Args:
        step_size: Rows in a step of the optimizer.
        need: The bytes that a batch of so many rows takes; more for more rows. It is asked seldom.
        free: The bytes there are.
    """
    sizes = batch_splits(step_size)
    if need(sizes[-1]) <= free:
        return sizes[-1]
    low, high = -1, len(sizes) - 1  # sizes[low] fits, sizes[high] doesn't
    while high - low > 1:
        middle = (low + high) // 2
        if need(sizes[middle]) <= free:
            low = middle
        else:
            high = middle
    return sizes[low] if low >= 0 else None


def training_cost(seconds: float, worker: Worker) -> float | None:
    """Give the price of so much time, in the currency of ``price_per_hour``."""
    return None if worker.price_per_hour is None else worker.price_per_hour * seconds / 3600


ADAPTER_SHARE = 0.02
"""What is trained, as a share of the weights: all linear layers at rank 16, on the safe side."""

BATCH_TOKENS = 4 * 1024  # the recipe's default batch of examples of the default ``max_length``

LAYER_BYTES = 34
"""Bytes of activations of a layer for each token and hidden unit (arXiv:2205.05198, section 4.1),
without attention scores."""

LIBRARIES = 1_500_000_000  # bytes that torch and its kernels take

LARGEST_ON_CPU = 1_000_000_000
"""Parameters of the largest model that a CPU trains in hours, not in days."""

EMBEDDINGS = ("embed", "lm_head", "wte")


@dataclass(frozen=True, slots=True)
class TrainableBase:
    """A pretrained model's folder, and the memory in bytes that training it takes, estimated."""

    path: Path
    parameters: int
    on_cpu: int
    on_gpu: int


@dataclass(frozen=True, slots=True)
class SuggestedBase:
    """A model to download where none is at hand, and the parameters it has."""

    name: str
    parameters: int


SUGGESTED = (
    SuggestedBase("Qwen/Qwen3-0.6B", 600_000_000),
    SuggestedBase("Qwen/Qwen3-1.7B", 1_700_000_000),
    SuggestedBase("Qwen/Qwen3-4B", 4_000_000_000),
    SuggestedBase("Qwen/Qwen3-8B", 8_200_000_000),
)
"""Models with a tool-calling template under Apache-2.0, the smallest first."""


def read(folder: Path) -> TrainableBase | None:
    """Read a model's folder; ``None`` if it holds no safetensors model with a tokenizer."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights or not (folder / "config.json").is_file():
        return None
    if not (folder / "tokenizer_config.json").is_file():
        return None
    sizes = {name: size for file in weights for name, size in _sizes(file).items()}
    config: Json = json.loads((folder / "config.json").read_text())
    total = sum(sizes.values())
    embeddings = sum(size for name, size in sizes.items() if any(e in name for e in EMBEDDINGS))
    activations = BATCH_TOKENS * LAYER_BYTES * _width(config)
    return _estimated(folder, total, embeddings, activations)


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


def _estimated(folder: Path, total: int, embeddings: int, activations: int) -> TrainableBase:
    quantized = total - embeddings
    trained = int(ADAPTER_SHARE * quantized)
    lasting = 2 * embeddings + 8 * trained + estimate.optimizer_state(4 * trained)
    packed = estimate.packed_weights(quantized)
    packed += estimate.quantization_constants(quantized, double=True)
    rest = lasting + activations + LIBRARIES
    return TrainableBase(folder, total, on_cpu=2 * quantized + rest, on_gpu=packed + rest)


def _sizes(file: Path) -> dict[str, int]:
    """Read the number of values of each tensor from the header of a safetensors file."""
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        header = cast("Mapping[str, Mapping[str, list[int]]]", json.loads(content.read(length)))
    sizes: dict[str, int] = {}
    for name, tensor in header.items():
        if name != "__metadata__":
            sizes[name] = 1
            for dimension in tensor["shape"]:
                sizes[name] *= dimension
    return sizes


def _width(config: Json) -> int:
    """Multiply layers and hidden units; 0 where a config says neither in the usual words."""
    match config:
        case {"num_hidden_layers": int(layers), "hidden_size": int(hidden)}:
            return layers * hidden
        case {"text_config": dict(inner)}:
            return _width(inner)
        case _:
            return 0
