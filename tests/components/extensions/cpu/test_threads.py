"""Data-parallel threads compute the whole batch's loss and gradients, if they can be used."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from components.extensions.cpu import kernels
from components.train.micro_batches import BatchLayout, collate
from components.train.sft_trainer import CompletionTrainer
from components.train.training_examples import Tokens
from tests.support import tiny
from tests.support.training_rows import taught

ROWS = [
    Tokens([5, 6, 7, 8, 9], 2, 1.0),
    Tokens([10, 11, 12], 1, 3.0),
    Tokens([13, 14, 15, 16], 3, 0.5),
]


@pytest.fixture(autouse=True)
def two_threads(threads: Callable[[int], None]) -> None:
    threads(2)


@pytest.fixture
def model(tmp_path: Path) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny.build(tmp_path), dtype=torch.float32)


@pytest.mark.parametrize("rows", [1, 2, 3], ids=["one row", "a row a lane", "uneven"])
def test_threads_give_the_loss_and_gradients_of_the_whole_batch(model: torch.nn.Module, rows: int):
    trainer = bare_trainer()
    trainer.layout = BatchLayout(threads=2, first_token_weight=4.0)
    examples = [taught(row) for row in ROWS[:rows]]
    batch = collate(examples, trainer.layout)
    trainer.batch_loss(model, batch).backward()
    expected = [weight.grad for weight in model.parameters()]
    model.zero_grad()

    with kernels.open_threads(kernels.thread_count(model)) as trainer.threads:
        assert trainer.threads
        loss = trainer.training_step(model, {"examples": examples})
    assert loss.item() == pytest.approx(trainer.batch_loss(model, batch).item(), rel=1e-5)
    for weight, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient)


def bare_trainer() -> CompletionTrainer:
    """Return a trainer without a run; a step needs only its class attributes."""
    return CompletionTrainer.__new__(CompletionTrainer)


def test_gradients_are_added_to_those_of_the_step_before(model: torch.nn.Module):
    trainer, inputs = bare_trainer(), {"examples": [taught(row) for row in ROWS]}
    trainer.layout = BatchLayout(threads=2)
    with kernels.open_threads(kernels.thread_count(model)) as trainer.threads:
        trainer.training_step(model, inputs)
        once = [
            torch.clone(weight.grad) for weight in model.parameters() if weight.grad is not None
        ]
        trainer.training_step(model, inputs)
    twice = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert once
    for first, second in zip(once, twice, strict=True):
        torch.testing.assert_close(second, 2 * first)


def test_an_error_in_a_thread_reaches_the_caller(model: torch.nn.Module):
    trainer, strange = bare_trainer(), Tokens([5, 10**6, 7], 1, 1.0)
    trainer.layout = BatchLayout(threads=2)
    with (
        kernels.open_threads(kernels.thread_count(model)) as trainer.threads,
        pytest.raises(IndexError),
    ):
        trainer.training_step(model, {"examples": [taught(row) for row in (*ROWS, strange)]})


def test_there_is_one_thread_with_dropout_or_a_thread_count_of_one(model: torch.nn.Module):
    assert kernels.thread_count(model) == 2
    assert kernels.thread_count(torch.nn.Sequential(model, torch.nn.Dropout(0.1))) == 1
    torch.set_num_threads(1)
    assert kernels.thread_count(model) == 1
    with kernels.open_threads(1) as opened:
        assert opened is None


def test_there_is_one_thread_with_dropout_that_is_no_module():
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=10,
        hidden_size=16,
        word_embed_proj_dim=16,
        ffn_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    assert config.dropout == 0.1
    assert kernels.thread_count(OPTForCausalLM(config)) == 1


def test_torchs_thread_count_is_restored(model: torch.nn.Module):
    with kernels.open_threads(kernels.thread_count(model)) as opened:
        assert opened
        opened.pool.submit(lambda: None).result()
    assert torch.get_num_threads() == 2
