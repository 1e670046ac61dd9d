"""Write a LoRA adapter as GGUF, which llama.cpp applies to a GGUF base (``--lora``).

It does the same as llama.cpp's ``convert_lora_to_gguf.py``, which is not packaged, for models built
like Llama: names from gguf's table, A and B in fp32, and rows of B permuted for models whose
attention llama.cpp computes on rows in another order. Imported late, since it loads torch.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

from components.models import adapter_folder
from components.schema import Json

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A GGUF model architecture; ``permutes``: the rows of its queries and keys are reordered."""

    name: gguf.MODEL_ARCH
    permutes: bool


ARCHITECTURES = {
    "llama": Architecture(gguf.MODEL_ARCH.LLAMA, permutes=True),
    "mistral": Architecture(gguf.MODEL_ARCH.LLAMA, permutes=True),
    "qwen2": Architecture(gguf.MODEL_ARCH.QWEN2, permutes=False),
    "qwen3": Architecture(gguf.MODEL_ARCH.QWEN3, permutes=False),
}
"""By the ``model_type`` of a base's configuration."""


def write(adapter: Path, base: Path, to: Path) -> None:
    """Write the adapter's GGUF file; only the base's configuration is read.

    Raises:
        ValueError: The adapter is not plain LoRA, or the base's architecture is not supported.
    """
    config = adapter_folder.adapter_config(adapter)
    adapter_folder.require_plain_lora(config, "llama.cpp")
    model: dict[str, Json] = json.loads((base / "config.json").read_text())
    kind = ARCHITECTURES.get(str(model["model_type"]))
    if kind is None:
        raise ValueError(
            f"exporting for llama.cpp: {base} is a {model['model_type']}, and adapters are written "
            f"for {', '.join(ARCHITECTURES)} only; export it merged and convert that"
        )
    writer = gguf.GGUFWriter(to, gguf.MODEL_ARCH_NAMES[kind.name])
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha(config))
    for name, matrix in tensors(adapter, kind, model).items():
        writer.add_tensor(name, matrix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def alpha(config: Mapping[str, Json]) -> float:
    """Return the alpha with which llama.cpp, which scales ``BAx`` by alpha / rank, equals PEFT.

    rsLoRA divides by the rank's square root instead (Kalajdzievski, arXiv:2312.03732).
    """
    value = float(cast("float", config["lora_alpha"]))
    return value * math.sqrt(cast("int", config["r"])) if config.get("use_rslora") else value


def tensors(adapter: Path, kind: Architecture, model: Mapping[str, Json]) -> dict[str, Matrix]:
    """Return the matrices by GGUF name: ``lora_a`` is ``[r, in]``, ``lora_b`` is ``[out, r]``.

    Raises:
        ValueError: GGUF has no name for a weight's layer.
    """
    layers = cast("int", model["num_hidden_layers"])
    names = gguf.get_tensor_name_map(kind.name, layers)
    matrices: dict[str, Matrix] = {}
    for key, weight in load_file(adapter / adapter_folder.WEIGHTS).items():
        module, _, side = key.removeprefix("base_model.model.").partition(".lora_")
        name = names.get_name(module)
        if name is None or side not in ("A.weight", "B.weight"):
            raise ValueError(f"exporting for llama.cpp: GGUF has no name for {key}")
        matrix = weight.float().numpy()
        if side.startswith("B") and kind.permutes:
            matrix = permuted(matrix, _heads(module, model))
        matrices[f"{name}.weight.lora_{side[0].lower()}"] = np.ascontiguousarray(matrix)
    return matrices


def permuted(rows: Matrix, heads: int) -> Matrix:
    """Interleave the rotary halves of each head's rows, as in llama.cpp; no-op for 0 heads.

    ``rows`` are ``[heads * head size, columns]``.
    """
    if not heads:
        return rows
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def _heads(module: str, model: Mapping[str, Json]) -> int:
    """Return the number of heads of a module whose rows are permuted; 0 for others."""
    queries = cast("int", model["num_attention_heads"])
    if module.endswith(".k_proj"):
        return cast("int", model.get("num_key_value_heads") or queries)
    return queries if module.endswith(".q_proj") else 0
