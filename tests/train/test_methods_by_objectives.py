"""Every method learns by every objective, and plain PEFT answers as the trained model does."""

from pathlib import Path

import pytest
import torch

from components import base
from components.train import fit
from components.train.objectives.settings import Distillation, Dpo, Kto, Objective, Orpo
from components.train.recipe import Recipe
from tests import tiny
from tests.train import judged, rows
from tests.train.methods import RECIPES
from tests.train.test_methods import ASKED, plain

pytestmark = pytest.mark.slow
QUESTIONS = [f"Number {number}?" for number in range(16)]
METHODS = ("qlora-nf4", "rslora", "dora-nf4", "pissa", "loftq", "adalora-nf4", "full")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("base"))


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    rows.snapshot(tmp_path, [(asked, "Yes.") for asked in QUESTIONS])
    judged.pairs(tmp_path, [(asked, "Yes.", "No!") for asked in QUESTIONS])
    labels = [(asked, "No!" if n % 2 else "Yes.", n % 2 == 0) for n, asked in enumerate(QUESTIONS)]
    return judged.labels(tmp_path, labels)


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
    losses: list[float] = []
    trained, tokenizer = base.load(model, recipe.precision, for_training=True)
    fit.train(
        trained,
        tokenizer,
        snapshot,
        tmp_path / "a",
        recipe,
        report=lambda one: losses.append(one.figures["loss"]),
    )
    steps = len(losses) // 3
    assert sum(losses[-steps:]) < 0.9 * sum(losses[:steps])
    trained.set_attn_implementation("eager")  # instead of that for packed sequences
    with torch.no_grad():
        wanted = torch.nn.Module.float(trained)(input_ids=ASKED).logits
    found = plain(model, recipe.precision, tmp_path / "a")
    tolerance = 1e-3 if recipe.bnb_4bit_quant_type is None else 5e-2
    assert (found - wanted).abs().max() < tolerance * wanted.abs().max()
