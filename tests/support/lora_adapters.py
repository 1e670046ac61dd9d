"""LoRA adapters of many kinds with random weights, and what PEFT computes with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

KINDS: dict[str, dict[str, Any]] = {
    "first": {},
    "second": {},
    "third": {},
    "rslora": {"use_rslora": True, "lora_alpha": 3},
    "rank-8": {"r": 8, "lora_alpha": 32},
    "queries-and-values": {"target_modules": ["q_proj", "v_proj"]},
    "one-layer": {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1]},
    "patterns": {
        "rank_pattern": {"down_proj": 2, "layers.0.self_attn.q_proj": 6},
        "alpha_pattern": {"up_proj": 12},
    },
    "up-only": {"target_modules": ["up_proj"]},
    "regex": {"target_modules": r".*\.1\.(self_attn\.o_proj|mlp\.gate_proj)"},
}


def build(base: Path, folder: Path, seed: int, **settings: Any) -> Path:
    """Write an adapter whose answers differ from the base's."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(seed)
    defaults: dict[str, Any] = {"r": 4, "target_modules": "all-linear", "init_lora_weights": False}
    get_peft_model(model, LoraConfig(**(defaults | settings))).save_pretrained(str(folder))
    return folder


def load(base: Path, adapter: Path | None) -> Any:
    """Load a base with an adapter, or without one, without our code."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return (model if adapter is None else PeftModel.from_pretrained(model, str(adapter))).eval()


def generate(model: Any, prompt: Sequence[int], count: int) -> list[int]:
    """Generate greedily with transformers, past end tokens."""
    with torch.inference_mode():
        answer = model.generate(
            input_ids=torch.tensor([prompt]),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    return answer[0, len(prompt) :].tolist()


def logprobs(model: Any, tokens: Sequence[int]) -> torch.Tensor:
    """Return the log-probability of each token but the first."""
    with torch.inference_mode():
        logs = model(input_ids=torch.tensor([tokens])).logits[0].float().log_softmax(-1)
    return logs[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
