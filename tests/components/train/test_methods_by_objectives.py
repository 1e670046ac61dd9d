"""Every method learns with every objective, and plain PEFT loads the same model."""

from pathlib import Path

import pytest

from components.train.recipe import Distillation, Dpo, Kto, Objective, Orpo, Recipe
from tests.support import judged_rows, portable_adapters, training_rows
from tests.support.training_methods import RECIPES

pytestmark = pytest.mark.slow
QUESTIONS = [f"Number {number}?" for number in range(16)]
METHODS = ("qlora-nf4", "rslora", "dora-nf4", "pissa", "loftq", "adalora-nf4", "full")


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    training_rows.snapshot(tmp_path, [(asked, "Yes.") for asked in QUESTIONS])
    judged_rows.pairs(tmp_path, [(asked, "Yes.", "No!") for asked in QUESTIONS])
    labels = [(asked, "No!" if n % 2 else "Yes.", n % 2 == 0) for n, asked in enumerate(QUESTIONS)]
    return judged_rows.labels(tmp_path, labels)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["dpo", "orpo", "kto", "distillation"])
def test_the_loss_falls_and_the_adapter_is_portable(
    model: Path, snapshot: Path, tmp_path: Path, method: str, kind: str
):
    objectives: dict[str, Objective] = {
        "dpo": Dpo(validation_share=0),
        "orpo": Orpo(validation_share=0),
        "kto": Kto(validation_share=0, beta=0.5),
        "distillation": Distillation(teacher_model_name_or_path=model, teacher_share=0.2),
    }
    recipe = Recipe.model_validate(
        RECIPES[method].model_dump() | {"objective": objectives[kind].model_dump()}
    )
    losses, _ = portable_adapters.train(model, snapshot, tmp_path / "a", recipe)
    steps = len(losses) // 3
    assert sum(losses[-steps:]) < 0.9 * sum(losses[:steps])
