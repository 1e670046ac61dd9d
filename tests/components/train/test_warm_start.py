"""A training starts from an earlier adapter of the same shape, and refuses others."""

import math
from pathlib import Path

import pytest
import torch
from pydantic import JsonValue
from safetensors.torch import load_file

from components.schema import Answer, Progress
from components.store.manifest import AdapterManifest
from components.train import checkpoints, fit
from components.train.checkpoints import StopCondition
from components.train.recipe import Recipe, adapter_key
from tests.support import judged_rows, training_rows
from tests.support.training_methods import RECIPES

slow = pytest.mark.slow
WARM = {"warm_start": True}


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pairs = [(f"Number {number}?", "Yes.") for number in range(16)]
    return training_rows.snapshot(tmp_path_factory.mktemp("snapshot"), pairs)


@pytest.mark.parametrize(
    "method",
    [
        "full",
        *(pytest.param(method, marks=slow) for method in ("lora", "dora-nf4")),
    ],
)
def test_it_starts_from_the_earlier_adapters_weights(
    model: Path, snapshot: Path, tmp_path: Path, method: str
):
    losses: list[float] = []

    def report(progress: Progress) -> None:
        losses.append(progress.figures["loss"])

    recipe = RECIPES[method]
    earlier, later = tmp_path / "earlier", tmp_path / "later"
    fit.fit(snapshot, model, earlier, recipe, report=report)
    ended = losses[-1]
    still = recipe.model_copy(update=WARM | {"learning_rate": 1e-12, "num_train_epochs": 0.5})
    fit.fit(snapshot, model, later, still, warm_start=earlier, report=report)
    assert losses[-1] == pytest.approx(ended, abs=0.2 * losses[0])
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (earlier, later))
    for name, weight in first.items():
        torch.testing.assert_close(weight, second[name], rtol=1e-2, atol=1e-4)  # bf16 at the start


def test_an_adapter_of_another_shape_is_refused(model: Path, snapshot: Path, tmp_path: Path):
    fit.fit(snapshot, model, tmp_path / "earlier", RECIPES["qlora-nf4"], report=lambda _: None)
    wider = RECIPES["qlora-nf4"].model_copy(update=WARM | {"r": 8})
    with pytest.raises(ValueError, match="its shape is not that of the recipe's adapter, at"):
        fit.fit(
            snapshot,
            model,
            tmp_path / "later",
            wider,
            warm_start=tmp_path / "earlier",
            report=lambda _: None,
        )


def manifest(base: str = "b1", **knobs: object) -> AdapterManifest:
    recipe: dict[str, JsonValue] = Recipe.model_validate(knobs).model_dump(mode="json")
    return of_recipe(recipe, base)


def of_recipe(recipe: dict[str, JsonValue], base: str = "b1") -> AdapterManifest:
    return AdapterManifest(
        kind="adapter",
        key="a1",
        created_at="2026-01-01T00:00:00+00:00",
        files={},
        snapshot="s1",
        base=base,
        recipe=recipe,
    )


def test_the_same_shape_on_the_same_base_can_be_warm_started():
    taught_otherwise = manifest(learning_rate=0.01, num_train_epochs=3, lora_dropout=0.1)
    assert checkpoints.warm_start_problem(Recipe(warm_start=True), "b1", taught_otherwise) is None


@pytest.mark.parametrize(
    ("earlier", "problem"),
    [
        pytest.param(manifest("b2"), "it is of another base (b2, now b1)", id="base"),
        pytest.param(manifest(r=8), "its r is 8, the recipe's 16", id="rank"),
        pytest.param(
            manifest(use_dora=True), "its use_dora is True, the recipe's False", id="dora"
        ),
        pytest.param(
            manifest(init_lora_weights="pissa"),
            "its ranks are not those of its recipe: its method reallocates or doubles them",
            id="pissa",
        ),
        pytest.param(
            manifest(init_lora_weights="loftq"),
            "it compensates the quantization error of nf4, and so would all after",
            id="loftq",
        ),
        pytest.param(
            of_recipe({"rank": 3}),
            "its recipe has settings that no longer exist",
            id="old-recipe",
        ),
    ],
)
def test_another_shape_or_base_can_not_be_warm_started(earlier: AdapterManifest, problem: str):
    assert checkpoints.warm_start_problem(Recipe(warm_start=True), "b1", earlier) == problem


def test_another_warm_start_changes_the_adapters_key():
    keys = {adapter_key("s", "b", Recipe(), warm_start=earlier) for earlier in (None, "a1", "a2")}
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("kind", "method", "at_the_start"),
    [
        pytest.param("dpo", "lora", math.log(2), id="dpo"),
        pytest.param("kto", "lora", 0.5, id="kto"),
        pytest.param("dpo", "full", math.log(2), id="dpo-full", marks=slow),
    ],
)
@pytest.mark.slow
def test_the_reference_after_a_warm_start_is_the_earlier_adapter(
    model: Path, tmp_path: Path, kind: str, method: str, at_the_start: float
):
    asked = [f"Number {number}?" for number in range(16)]
    training_rows.snapshot(tmp_path, [(question, "Yes.") for question in asked])
    judged_rows.pairs(tmp_path, [(question, "Yes.", "No!") for question in asked])
    judged_rows.labels(
        tmp_path,
        [(question, "No!" if n % 2 else "Yes.", n % 2 == 0) for n, question in enumerate(asked)],
    )
    recipe = RECIPES[method].model_copy(update={"num_train_epochs": 3})
    fit.fit(tmp_path, model, tmp_path / "earlier", recipe, report=lambda _: None)
    objective = {"kind": kind, "validation_share": 0}
    preferring = Recipe.model_validate(
        {**recipe.model_dump(), **WARM, "objective": objective, "save_steps": 2}
    )

    def losses(name: str, *stops: int | None) -> dict[int, float]:
        losses: dict[int, float] = {}

        def report(progress: Progress) -> None:
            if "loss" in progress.figures:
                losses[progress.done] = progress.figures["loss"]

        for stop in stops:
            fit.fit(
                tmp_path,
                model,
                tmp_path / name,
                preferring,
                warm_start=tmp_path / "earlier",
                report=report,
                stop=None if stop is None else StopCondition(at_step=stop),
            )
        return losses

    whole = losses("whole", None)
    assert whole[1] == pytest.approx(at_the_start, abs=0.01)
    assert whole[max(whole)] < 0.9 * at_the_start
    training_rows.write(
        tmp_path, [(question, (), Answer("Yes.")) for question in asked[:2]], side="validation"
    )
    assert losses("pieces", 3, None) == whole
