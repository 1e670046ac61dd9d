"""Training on a sharded base equals training on a whole one, and each process has its shard."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from components.models import base as bases
from components.train import peft_model
from components.train.micro_batches import BatchLayout, collate, pad_with_empty
from components.train.recipe import AdaLora, Dpo, Kto, Objective, Recipe, Sft, adapter_key
from components.train.sft_trainer import CompletionTrainer
from components.train.training_examples import Tokens
from tests.components.train.test_process_group import (
    environment,
    judge,
    read_results,
    recipe,
    require_same,
    train_together,
)
from tests.support import judged_rows, training_rows
from tests.support.train_together import held_bytes
from tests.support.training_rows import taught

EXAMPLES = [taught(Tokens([5, 6, 7, 8, 9], 2, 1.0)), taught(Tokens([10, 11, 12], 1, 3.0))]
SFT: Objective = Sft()


def test_padding_changes_neither_loss_nor_gradients(model: Path) -> None:
    bare, _ = bases.load(model, "fp32", for_training=True)
    trainer = CompletionTrainer.__new__(CompletionTrainer)
    batch = collate(EXAMPLES)
    results: list[tuple[torch.Tensor, ...]] = []
    for padded in (batch, pad_with_empty(batch, EXAMPLES, 3)):
        loss = trainer.batch_loss(bare, padded)
        results.append((loss, *torch.autograd.grad(loss, [*bare.parameters()])))
    for alone, accompanied in zip(*results, strict=True):
        torch.testing.assert_close(accompanied, alone, rtol=0, atol=0)


def test_a_process_without_examples_pads_and_learns_nothing(model: Path) -> None:
    bare, _ = bases.load(model, "fp32", for_training=True)
    trainer = CompletionTrainer.__new__(CompletionTrainer)
    empty = collate(EXAMPLES[:1], BatchLayout(process=1, processes=2))
    assert not empty["micro_batches"]
    loss = trainer.batch_loss(bare, pad_with_empty(empty, EXAMPLES[:1], 2))
    gradients = torch.autograd.grad(loss, [*bare.parameters()])
    assert loss == 0
    assert not any(gradient.any() for gradient in gradients)


def test_an_adapter_has_the_same_key_however_processes_share_the_base() -> None:
    keys = {adapter_key("s", "b", recipe(SFT, fsdp=fsdp)) for fsdp in (None, "full_shard")}
    assert len(keys) == 1


VALIDATED = {"eval_steps": 2, "early_stopping_patience": 9}
SPLIT: dict[str, Recipe] = {
    name: recipe(objective, fsdp="full_shard", **knobs)
    for name, objective, knobs in (
        ("sft", SFT, VALIDATED),
        ("unquantized", SFT, {"bnb_4bit_quant_type": None, "gradient_checkpointing": True}),
        ("dpo", Dpo(), {}),
        ("kto", Kto(beta=0.5), {}),
        ("dora", SFT, {"use_dora": True}),
        ("pissa", SFT, {"init_lora_weights": "pissa"}),
    )
}


SPLIT["adalora"] = Recipe(
    method="adalora",
    adalora=AdaLora(init_r=6, target_r=3),
    learning_rate=6e-2,
    fsdp="full_shard",
    per_device_train_batch_size=7,
    num_train_epochs=2,
    save_steps=2,
)


@pytest.fixture(scope="module")
def together(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train by each recipe in two processes that split the base."""
    folder = judge(tmp_path_factory.mktemp("split"))
    training_rows.write(
        folder, [("Number x?", [], training_rows.Answer("Yes."))] * 3, side="validation"
    )
    judged_rows.pairs(folder, [(f"Number {number}?", "Yes.", "No.") for number in range(15)])
    train_together(folder, model, SPLIT)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", SPLIT)
def test_two_processes_with_a_sharded_base_train_as_one_does(
    model: Path, together: Path, tmp_path: Path, name: str
) -> None:
    require_same(model, together, name, SPLIT[name], tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("name", SPLIT)
def test_each_process_holds_half_of_the_base(model: Path, together: Path, name: str) -> None:
    bare, _ = bases.load(model, SPLIT[name].precision, for_training=True)
    whole = held_bytes(peft_model.attach_trainable(bare, SPLIT[name]))
    for result in read_results(together, name):
        assert result["held"] == pytest.approx(whole / 2, rel=0.05)


@pytest.mark.slow
def test_sharding_works_for_models_that_compute_row_by_row(model: Path, tmp_path: Path) -> None:
    windowed = shutil.copytree(model, tmp_path / "windowed")
    config = json.loads((windowed / "config.json").read_text())
    config |= {
        "model_type": "mistral",
        "architectures": ["MistralForCausalLM"],
        "sliding_window": 8,
    }
    (windowed / "config.json").write_text(json.dumps(config))
    folder = tmp_path / "split"
    folder.mkdir()
    train_together(judge(folder), windowed, {"bf16": SPLIT["unquantized"]})
    require_same(windowed, folder, "bf16", SPLIT["unquantized"], tmp_path / "one")


@pytest.mark.slow
def test_4_bit_weights_are_sharded_and_gathered_exactly(model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.support.split_base", str(model), str(tmp_path)]
    subprocess.run(command, env=environment(2), check=True)
    for rank in ("0", "1"):
        result = json.loads((tmp_path / rank).read_text())
        first, *others = result["losses"]
        assert others == [first, first]
        assert result["gradients_equal"]
        assert result["held"] == pytest.approx(result["whole"] / 2, rel=0.05)
