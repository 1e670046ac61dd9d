"""For every kind of model, packed rows have the logits of separate rows."""

import copy
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from components.train import peft_model, sft_trainer
from components.train.micro_batches import collate
from components.train.packing import can_pack_rows
from components.train.recipe import Recipe
from components.train.training_examples import Tokens
from tests.support.training_rows import taught

SMALL = {
    "vocab_size": 120,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
    "pad_token_id": 0,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
WINDOW = {"sliding_window": 8}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "smollm3": {},
    "mistral": WINDOW,
    "gemma": {"head_dim": 16},
    "gemma2": {"head_dim": 16, **WINDOW},
    "gemma3_text": {"head_dim": 16, **WINDOW},
    "gemma3": {
        "text_config": {**SMALL, "head_dim": 16, "sliding_window": 64},
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        "mm_tokens_per_image": 4,
        "image_token_index": 119,
    },
    "phi": {},
    "phi3": {},
    "phi3 longrope": {
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10_000.0,
            "short_factor": [1.0] * 8,
            "long_factor": [8.0] * 8,
        },
        "original_max_position_embeddings": 17,
    },
    "olmo2": {},
    "granite": {},
    "gpt_neox": {},
    "gpt2": {},
    "opt": {"ffn_dim": 128, "word_embed_proj_dim": 64},
    "bloom": {},
    "starcoder2": WINDOW,
    "exaone4": {"head_dim": 16, **WINDOW},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "qwen3_moe": {"head_dim": 16, **EXPERTS},
    "qwen3_next": {
        "head_dim": 16,
        "layer_types": ["linear_attention", "full_attention"],
        "shared_expert_intermediate_size": 32,
        **EXPERTS,
    },
}
BY_ITSELF = {
    *("mistral", "gemma2", "gemma3_text", "starcoder2", "exaone4"),  # windows of 8 tokens
    *("gpt2", "opt", "bloom", "lfm2", "qwen3_next"),
    "phi3 longrope",
}
FULL = Recipe(bnb_4bit_quant_type=None, method="full")
ADALORA = Recipe(bnb_4bit_quant_type=None, method="adalora")
LONG, BRIEF = 20, 6
ANSWER = 4


def build(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind.split()[0], **{**SMALL, **KINDS[kind]})
    for name in config.to_dict():
        if "drop" in name:
            setattr(config, name, 0.0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).train()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*fast path is not available.*")
def test_packed_rows_have_the_logits_of_separate_rows(kind: str):
    model = build(kind)
    draws = torch.Generator().manual_seed(1)
    ends = [torch.randint(3, 119, (count,), generator=draws).tolist() for count in (16, 11, 8, 18)]
    rows = [[5, 6, 7, 8, 9, 10, *end] for end in ends[:3]] + [ends[3]]
    alone = copy.deepcopy(model).float().eval()
    recipe = Recipe.model_validate({"r": 4, "lora_alpha": 8, "bnb_4bit_quant_type": None})
    adapted = peft_model.attach_trainable(model, recipe, [])
    peft_model.keep_in_fp32(adapted)
    (share,) = collate([taught(Tokens(row, ANSWER, 1.0)) for row in rows])["micro_batches"]

    with torch.autocast("cpu", torch.bfloat16):
        logits = sft_trainer.answer_logits(adapted, share)
    logits.logsumexp(-1).sum().backward()

    with torch.no_grad():
        separately = [
            alone(input_ids=torch.tensor([row])).logits[0, -1 - ANSWER : -1] for row in rows
        ]
    expected = torch.cat(separately)
    # bf16 has eight bits; what sees another row's tokens is off by as much as logits are apart
    assert (logits - expected).square().mean().sqrt() < 0.05 * expected.std()
    learned = [weight for name, weight in adapted.named_parameters() if "lora_B" in name]
    assert all(weight.grad is not None and weight.grad.any() for weight in learned)


@pytest.mark.parametrize("kind", KINDS)
def test_only_models_that_can_not_pack_compute_row_by_row(kind: str):
    assert can_pack_rows(build(kind), LONG) == (kind not in BY_ITSELF)


def test_a_window_longer_than_every_row_does_not_prevent_packing():
    assert can_pack_rows(build("gemma3_text"), BRIEF)
    assert can_pack_rows(build("mistral"), BRIEF)


def test_rows_that_are_too_short_to_be_rotated_otherwise_are_packed():
    assert can_pack_rows(build("phi3 longrope"), BRIEF)


def test_the_towers_of_a_base_for_images_get_no_adapter():
    model = build("gemma3")
    for recipe in (Recipe(bnb_4bit_quant_type=None), ADALORA):
        adapted = peft_model.attach_trainable(copy.deepcopy(model), recipe, [])
        trained = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
        assert trained
        assert all(".language_model.layers." in name for name in trained)


def test_a_base_with_weights_beside_modules_cannot_be_trained_in_full():
    with pytest.raises(ValueError, match=r"but model\.layers\.0\.linear_attn of this base has"):
        peft_model.attach_trainable(build("qwen3_next"), FULL)


def test_in_full_means_all_that_text_passes():
    adapted = peft_model.attach_trainable(build("gemma3"), FULL)
    trained = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert any("language_model.layers.1.mlp" in name for name in trained)
    assert not any("vision_tower" in name for name in trained)
