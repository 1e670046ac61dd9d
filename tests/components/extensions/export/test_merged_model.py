"""Merged weights are the base's plus the adapter's product, rounded once."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from components.extensions.export import merged_model
from tests.support import logits, tiny
from tests.support.adapter_folders import Making


def test_the_folder_loads_in_plain_transformers_to_the_logits_of_base_and_adapter(
    make: Making, tiny_base: Path, tmp_path: Path
):
    adapter, folder = make(), tmp_path / "merged"
    merged_model.write(adapter, tiny_base, folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected = logits.adapted(tiny_base, adapter)
    found = logits.of(model)
    assert (found - expected).norm() / expected.norm() < 0.01, "bf16 keeps 8 bits of each weight"
    assert not list(folder.glob("adapter*"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(tiny_base).chat_template


@pytest.mark.parametrize("module", ["lm_head", "embed_tokens"])
def test_an_adapter_on_one_of_two_tied_layers_leaves_the_other_as_it_is(
    make: Making, tiny_base: Path, tmp_path: Path, module: str
):
    adapter = make(target_modules=["q_proj", module])
    merged_model.write(adapter, tiny_base, tmp_path / "merged")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    expected = logits.adapted(tiny_base, adapter)
    assert (logits.of(model) - expected).norm() / expected.norm() < 0.01


def test_each_weight_was_added_in_fp32_and_rounded_to_bf16_once(
    make: Making, tiny_base: Path, tmp_path: Path
):
    adapter = make()
    merged_model.write(adapter, tiny_base, tmp_path / "merged")
    found = load_file(tmp_path / "merged" / "model.safetensors")
    base = load_file(tiny_base / "model.safetensors")
    learned = load_file(adapter / "adapter_model.safetensors")
    name = "model.layers.1.self_attn.k_proj"
    a, b = (learned[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    expected = (base[f"{name}.weight"].float() + 8 / 4 * (b @ a)).bfloat16()
    torch.testing.assert_close(found[f"{name}.weight"], expected, rtol=0, atol=0)


def test_it_ends_its_answers_where_the_adapter_did_and_keeps_what_servers_read(
    make: Making, tiny_base: Path, tmp_path: Path
):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    GenerationConfig(eos_token_id=0).save_pretrained(base)  # the tokenizer's is another one
    (base / "tekken.json").write_text("{}")
    merged_model.write(make(), base, tmp_path / "merged")
    ends = GenerationConfig.from_pretrained(tmp_path / "merged").eos_token_id
    assert ends == [tiny.SPECIAL.index("<|im_end|>"), 0]
    assert (tmp_path / "merged" / "tekken.json").read_text() == "{}"


def test_a_base_whose_generation_settings_contradict_each_other_is_merged(
    make: Making, tiny_base: Path, tmp_path: Path
):
    base = shutil.copytree(tiny_base, tmp_path / "base")
    published = {"temperature": 0.9, "top_p": 0.6, "eos_token_id": 0}  # as Vicuna's: no sampling
    (base / "generation_config.json").write_text(json.dumps(published))
    merged_model.write(make(), base, tmp_path / "merged")
    written = json.loads((tmp_path / "merged" / "generation_config.json").read_text())
    assert written["temperature"] == 0.9
    assert written["eos_token_id"] == [tiny.SPECIAL.index("<|im_end|>"), 0]
