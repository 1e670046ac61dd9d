"""Bases of other kinds: those with biases are served, those that compute something else refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from components.extensions.embedded import decoder_layers
from components.extensions.embedded.shared_base import SharedBase, UnservableBaseError
from components.extensions.embedded.slot_memory import fitting_context
from tests.support import lora_adapters, tiny
from tests.support.batched_answers import Engine

PROMPT = [7, 30, 31, 32, 40]
FULL = ["full_attention"] * 2


def build(folder: Path, kind: str, **settings: Any) -> Path:
    """Write a random base of another architecture."""
    tokenizer = tiny.tokenizer()
    tokenizer.save_pretrained(folder)
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=256,
        initializer_range=0.2,
        pad_token_id=2,
        **settings,
    )
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "settings", "is_fused"),
    [
        pytest.param("qwen2", {"layer_types": FULL}, True, id="biases"),
        pytest.param("qwen3", {"layer_types": FULL}, True, id="norms-of-queries-and-keys"),
        pytest.param("granite", {"residual_multiplier": 0.3}, False, id="other-residuals"),
        pytest.param("granite", {"residual_multiplier": 0.998}, False, id="nearly-the-form"),
        pytest.param(
            "smollm3",
            {"layer_types": FULL, "no_rope_layers": [1, 0]},
            False,
            id="a-layer-without-rotary-embedding",
        ),
    ],
)
def test_bases_of_other_kinds_answer_like_transformers(
    tmp_path: Path, kind: str, settings: dict[str, Any], is_fused: bool
) -> None:
    folder = build(tmp_path / "base", kind, **settings)
    adapter = lora_adapters.build(folder, tmp_path / "adapter", 0)
    base = SharedBase(folder, "fp32", slots=2)
    layers = decoder_layers.find_layers(base.model)
    assert ["forward" in vars(layer) for layer in layers] == [is_fused, is_fused]
    engine = Engine(base, {"first": adapter})
    answers = {name: engine.start(name, PROMPT) for name in ("first", "base")}
    engine.run()
    for name, answer in answers.items():
        alone = lora_adapters.load(folder, {"first": adapter}.get(name))
        assert answer.tokens == lora_adapters.generate(alone, PROMPT, 12)


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        pytest.param("mistral", {"sliding_window": 8}, "sliding windows", id="sliding-windows"),
        pytest.param(
            "gemma2",
            {"layer_types": FULL, "attn_logit_softcapping": 0.1, "query_pre_attn_scalar": 1},
            "computes other probabilities",
            id="capped-attention",
        ),
    ],
)
def test_a_base_that_computes_something_else_is_refused(
    tmp_path: Path, kind: str, settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UnservableBaseError, match=reason):
        SharedBase(build(tmp_path, kind, **settings), "fp32", slots=1)


def test_a_context_without_room_for_a_request_is_refused(tiny_base: Path) -> None:
    with pytest.raises(UnservableBaseError, match="10 tokens are too few for prompt"):
        SharedBase(tiny_base, "fp32", slots=1, context=10)


@pytest.mark.parametrize(
    ("free", "context"),
    [
        pytest.param(120 * 2**30, 40960, id="all-of-it"),
        pytest.param(20 * 2**30, 9102, id="what-half-of-the-memory-has-room-for"),
        pytest.param(2**20, 0, id="nothing"),
    ],
)
def test_slots_take_at_most_half_of_a_gpus_free_memory(free: int, context: int) -> None:
    # Qwen3-4B: 147,456 bytes a token, so that eight slots of 40,960 tokens take 48 GB.
    assert fitting_context(40960, 8, 147456, free) == context
