"""The GGUF file's products equal PEFT's, with rows in llama.cpp's order."""

import json
import math
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.torch import load_file

from components.extensions.export import gguf_lora
from tests.support.adapter_folders import Making

NAMES = {
    "self_attn.q_proj": ("attn_q", 2),
    "self_attn.k_proj": ("attn_k", 1),
    "self_attn.v_proj": ("attn_v", 0),
    "self_attn.o_proj": ("attn_output", 0),
    "mlp.gate_proj": ("ffn_gate", 0),
    "mlp.up_proj": ("ffn_up", 0),
    "mlp.down_proj": ("ffn_down", 0),
}
"""GGUF's names, and the heads whose rows llama.cpp permutes."""


def written(adapter: Path, base: Path, to: Path) -> gguf.GGUFReader:
    gguf_lora.write(adapter, base, to)
    return gguf.GGUFReader(to)


def field(reader: gguf.GGUFReader, name: str) -> object:
    found = reader.get_field(name)
    assert found
    return found.contents()


def llama_cpps(weight: np.ndarray, heads: int) -> np.ndarray:
    """Move row ``half * i + j`` of each head to row ``2 j + i``, one by one."""
    if not heads:
        return weight
    moved, size = np.empty_like(weight), len(weight) // heads
    for row in range(len(weight)):
        head, place = divmod(row, size)
        half, at = divmod(place, size // 2)
        moved[head * size + 2 * at + half] = weight[row]
    return moved


@pytest.mark.parametrize(
    ("knobs", "scale"),
    [
        pytest.param({}, 8 / 4, id="lora"),
        pytest.param({"use_rslora": True}, 8 / math.sqrt(4), id="rslora"),
    ],
)
def test_its_product_equals_pefts_in_llama_cpps_order(
    make: Making, tiny_base: Path, tmp_path: Path, knobs: dict[str, object], scale: float
):
    adapter = make(**knobs)
    reader = written(adapter, tiny_base, tmp_path / "a.gguf")
    # A tensor's shape stands in the file the other way round; its data does not.
    found = {tensor.name: tensor.data for tensor in reader.tensors}
    alpha = field(reader, "adapter.lora.alpha")
    assert isinstance(alpha, float)
    learned = load_file(adapter / "adapter_model.safetensors")
    assert len(found) == len(learned) == 2 * 2 * len(NAMES)
    for layer in (0, 1):
        for module, (name, heads) in NAMES.items():
            a, b = (found[f"blk.{layer}.{name}.weight.lora_{side}"] for side in "ab")
            ours, theirs = (
                learned[
                    f"base_model.model.model.layers.{layer}.{module}.lora_{side}.weight"
                ].numpy()
                for side in "AB"
            )
            assert a.dtype == np.float32
            np.testing.assert_allclose(
                alpha / len(a) * (b @ a),
                llama_cpps(scale * (theirs @ ours), heads),
                rtol=1e-4,
                atol=1e-5,
            )


def test_its_metadata_is_that_of_a_lora_adapter_of_this_architecture(
    make: Making, tiny_base: Path, tmp_path: Path
):
    reader = written(make(), tiny_base, tmp_path / "a.gguf")
    assert field(reader, "general.type") == "adapter"
    assert field(reader, "general.architecture") == "llama"
    assert field(reader, "adapter.type") == "lora"


def test_rows_are_not_permuted_if_llama_cpp_computes_as_transformers_does(
    make: Making, tiny_base: Path, tmp_path: Path
):
    adapter = make()
    reader = written(adapter, as_if(tiny_base, "qwen2", tmp_path), tmp_path / "a.gguf")
    found = {tensor.name: tensor.data for tensor in reader.tensors}
    learned = load_file(adapter / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    np.testing.assert_array_equal(found["blk.0.attn_q.weight.lora_b"], learned[name].numpy())
    assert field(reader, "general.architecture") == "qwen2"


def test_a_base_of_another_architecture_is_rejected(make: Making, tiny_base: Path, tmp_path: Path):
    with pytest.raises(
        ValueError, match="is a gemma3, and adapters are written for llama, mistral"
    ):
        gguf_lora.write(make(), as_if(tiny_base, "gemma3", tmp_path), tmp_path / "a.gguf")


def test_an_adapter_that_is_not_plain_lora_is_rejected(
    make: Making, tiny_base: Path, tmp_path: Path
):
    with pytest.raises(ValueError, match=r"llama\.cpp: .* it is LoRA with use_dora"):
        gguf_lora.write(make(use_dora=True), tiny_base, tmp_path / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()


def as_if(base: Path, kind: str, root: Path) -> Path:
    """Copy a base's configuration with another architecture."""
    folder = root / kind
    folder.mkdir()
    shutil.copy(base / "config.json", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": kind}))
    return folder
