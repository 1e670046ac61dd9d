"""On a CPU, a training takes the planned memory."""

from pathlib import Path

import pytest

from tests.support import measured_memory, tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of SmolLM2-135M's shape, without a download."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("base")
    tiny.tokenizer().save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        dtype=torch.bfloat16,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("setting", measured_memory.SETTINGS)
def test_a_training_takes_the_planned_memory(model: Path, tmp_path: Path, setting: str):
    planned, measured = measured_memory.compare(
        *measured_memory.plan_and_measure(model, tmp_path / "measured", setting)
    )
    assert planned == pytest.approx(measured, rel=measured_memory.TOLERANCE)
