"""A training with validation rows reports its adapter's loss on them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from components.chat import prompt
from components.models import base
from components.schema import Answer, Progress
from components.train import fit
from components.train.recipe import Recipe
from tests.support import training_rows

RECIPE = Recipe(r=4, learning_rate=2e-2, num_train_epochs=1, save_steps=100)
HELD = [("Number 100?", "Yes."), ("What is number 101?", "It is a number.")]


def keep(figures: dict[str, float]) -> Callable[[Progress], None]:
    """Return a callback that stores the newest figure of each name."""

    def report(progress: Progress) -> None:
        figures.update(progress.figures)

    return report


def test_the_loss_of_the_finished_adapter_is_measured_on_validation_rows(
    model: Path, tmp_path: Path
):
    from peft import PeftModel

    snapshot = training_rows.snapshot(tmp_path, [(f"Number {n}?", "Yes.") for n in range(8)])
    held = [(asked, (), Answer(answer)) for asked, answer in HELD]
    training_rows.write(snapshot, held, weight=0.5, side="validation")
    figures: dict[str, float] = {}
    counts: list[tuple[int, int, str]] = []

    def report(progress: Progress) -> None:
        keep(figures)(progress)
        if progress.stage == "validate":
            counts.append((progress.done, progress.total, progress.unit))

    fit.fit(snapshot, model, tmp_path / "a", RECIPE, report=report)
    assert counts[0] == (0, len(HELD), "rows"), "it is said before the first batch"
    assert counts[-1] == (len(HELD), len(HELD), "rows")

    bare, tokenizer = base.load(model, "nf4", for_training=False)
    learned = PeftModel.from_pretrained(bare, str(tmp_path / "a"))
    losses: list[float] = []
    for asked, answer in HELD:
        text = prompt.to_text(tokenizer, [{"role": "user", "content": asked}])
        before = tokenizer(text, add_special_tokens=False).input_ids
        after = tokenizer(f"{answer}<|im_end|>", add_special_tokens=False).input_ids
        with torch.no_grad():
            logits = learned(input_ids=torch.tensor([before + after])).logits[0]
        scored = logits[len(before) - 1 : -1].float().log_softmax(-1)
        losses += [-float(row[token]) for row, token in zip(scored, after, strict=True)]
    assert figures["validation_loss"] == pytest.approx(sum(losses) / len(losses), rel=0.03)


def test_without_validation_rows_nothing_is_measured(model: Path, tmp_path: Path):
    snapshot = training_rows.snapshot(tmp_path, [(f"Number {n}?", "Yes.") for n in range(8)])
    figures: dict[str, float] = {}
    fit.fit(snapshot, model, tmp_path / "a", RECIPE, report=keep(figures))
    assert "loss" in figures
    assert "validation_loss" not in figures
