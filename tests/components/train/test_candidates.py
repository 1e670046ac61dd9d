"""Every combination of the values to try is a candidate; invalid ones are refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from components.train import candidates
from components.train.candidates import SearchBudget, SearchSettings
from components.train.recipe import Distillation, Recipe

BASE = Path("models/a")


def search(**over: list[object]) -> SearchSettings:
    return SearchSettings(over=over, budget=SearchBudget(tokens=1000))


def test_every_combination_is_a_candidate_and_other_settings_are_the_recipes():
    recipe = Recipe(num_train_epochs=2)
    expanded = candidates.expand_candidates(
        BASE, recipe, search(r=[8, 16], learning_rate=[5e-4, 1e-3], base=["models/a", "models/b"])
    )
    assert len(expanded) == 8
    assert {candidate.recipe.num_train_epochs for candidate in expanded} == {2}
    first = [(candidate.recipe.r, candidate.base.name) for candidate in expanded[:3]]
    assert first == [(8, "a"), (8, "b"), (8, "a")]
    assert expanded[1].name == "r 8, learning_rate 0.0005, base b"


def test_the_base_is_the_workloads_if_none_is_tried():
    expanded = candidates.expand_candidates(BASE, Recipe(), search(r=[1, 2]))
    assert {candidate.base for candidate in expanded} == {BASE}


def test_bases_and_teachers_are_relative_to_a_folder(tmp_path: Path):
    taught = {"kind": "distillation", "teacher_model_name_or_path": "large"}
    resolved = candidates.resolve_paths(
        search(base=["a", "/b"], objective=["sft", taught], r=[1]), tmp_path
    )
    expanded = candidates.expand_candidates(BASE, Recipe(), resolved)
    assert [str(candidate.base) for candidate in expanded] == [f"{tmp_path}/a"] * 2 + ["/b"] * 2
    objective = expanded[1].recipe.objective
    assert isinstance(objective, Distillation)
    assert objective.teacher_model_name_or_path == tmp_path / "large"


@pytest.mark.parametrize(
    ("over", "message"),
    [
        pytest.param({"rank": [1, 2]}, "over.rank: is no setting of train", id="unknown"),
        pytest.param({"seed": [1, 2]}, "over.seed: every candidate has the same", id="seed"),
        pytest.param({"r": []}, "over.r: lists nothing to try", id="empty"),
        pytest.param({"r": [8]}, "gives one candidate", id="nothing to choose"),
        pytest.param({"r": [8, 8]}, "the candidate r 8 is there twice", id="twice"),
        pytest.param(
            {"fsdp": [None, "full_shard"]}, "fsdp full_shard is there twice", id="the same adapter"
        ),
        pytest.param({"warm_start": [False, True]}, "leave warm_start out", id="champion's"),
        pytest.param(
            {"bnb_4bit_quant_type": ["nf4", "fp4"]}, "the same for all", id="another precision"
        ),
        pytest.param({"objective": ["sft", "dpo"]}, "objective dpo does not aim", id="judging"),
        pytest.param({"r": [8, 0]}, r"over\.r: .*greater than or equal to 1", id="impossible"),
    ],
)
def test_invalid_values_to_try_are_refused(over: dict[str, list[object]], message: str):
    with pytest.raises(ValueError, match=message):
        candidates.expand_candidates(BASE, Recipe(), search(**over))


def test_an_invalid_combination_is_named_in_the_error():
    over: dict[str, list[object]] = {"r": [8, 16], "layers_to_transform": [None, [1]]}
    with pytest.raises(
        ValueError, match=r"requires target_modules by name.*layers_to_transform \[1\]"
    ):
        candidates.expand_candidates(BASE, Recipe(), search(**over))


@pytest.mark.parametrize("budget", [{}, {"tokens": 1, "minutes": 1}])
def test_a_budget_is_in_tokens_or_in_minutes(budget: dict[str, int]):
    with pytest.raises(ValidationError, match="either tokens or minutes"):
        SearchBudget.model_validate(budget)
