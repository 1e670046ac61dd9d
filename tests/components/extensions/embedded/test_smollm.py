"""The demo's base with eight adapters in one batch, against transformers with each alone."""

from pathlib import Path
from typing import Any

import pytest
import torch

from components.extensions.embedded.shared_base import SharedBase
from flows.cli import demo_command
from flows.demo import wheels
from tests.support import lora_adapters
from tests.support.batched_answers import Engine

SETTINGS: tuple[dict[str, Any], ...] = (
    {"r": 16},
    {"r": 16, "use_rslora": True},
    {"r": 8, "target_modules": ["q_proj", "v_proj"]},
    {"r": 32, "layers_to_transform": list(range(10, 20)), "target_modules": ["up_proj", "o_proj"]},
    {"r": 16, "lora_alpha": 64},
    {"r": 4},
    {"r": 16, "target_modules": ["gate_proj", "down_proj"]},
    {"r": 16},
)
QUESTIONS = (
    "What is the capital of France?",
    "Write a poem about a parrot 🦜 in Zürich. " * 12,
    "I lost my card, what shall I do?",
    "Count to ten.",
)


@pytest.mark.slow
def test_eight_adapters_in_one_batch_answer_like_each_alone(tmp_path: Path) -> None:
    folder = wheels.fetch_inputs(demo_command.download_folder(), lambda _: None).base
    adapters = {
        f"adapter-{seed}": lora_adapters.build(folder, tmp_path / str(seed), seed, **settings)
        for seed, settings in enumerate(SETTINGS)
    }
    for adapter in adapters.values():
        soften(adapter)
    base = SharedBase(folder, "fp32", slots=9, context=1024)
    engine = Engine(base, adapters, slots=9)
    names = [*adapters, "base"]
    prompts = [
        base.tokenizer.encode(
            f"<|im_start|>user\n{QUESTIONS[number % 4]}<|im_end|>\n<|im_start|>assistant\n"
        )
        for number in range(len(names))
    ]
    answers = {
        name: engine.start(name, prompt, 24, logprobs=0)
        for name, prompt in zip(names, prompts, strict=True)
    }
    engine.run()
    bare = lora_adapters.load(folder, None)
    for name, prompt in zip(names, prompts, strict=True):
        alone = lora_adapters.load(folder, adapters.get(name))
        answer = answers[name]
        assert answer.tokens == lora_adapters.generate(alone, prompt, 24), name
        expected = lora_adapters.logprobs(alone, [*prompt, *answer.tokens])[len(prompt) - 1 :]
        scored = torch.tensor([score.logprob for score in answer.scores])
        assert torch.allclose(scored, expected, atol=1e-4, rtol=0), name
        # each adapter moves the base, so that a missing one would be noticed
        others = lora_adapters.logprobs(bare, [*prompt, *answer.tokens])[len(prompt) - 1 :]
        assert name == "base" or not torch.allclose(scored, others, atol=1e-3, rtol=0), name


def soften(adapter: Path) -> None:
    """Make random weights small enough for the base's answers to stay text."""
    from safetensors.torch import load_file, save_file

    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({n: t * (0.3 if "lora_B" in n else 1) for n, t in tensors.items()}, file)
