"""A training starts from the champion's adapter where it can, and reports why where it can't."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.chat import chat_templates
from components.models import base
from components.register import registry, tracking, version_tags
from components.register.logged_model import ServingParameters
from components.store import manifest
from components.train.recipe import Recipe
from flows import train
from flows.workload_file import Workload
from tests.support.holdouts import NOW

WARM = Recipe(warm_start=True)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    return tmp_path


def workload(name: str, base_model: Path, recipe: Recipe = WARM) -> Workload:
    section = {"workload": name, "base": base_model, "train": recipe}
    return Workload.model_validate(section, context=base_model.parent)


def crowned(home: Path, made: Workload, snapshot: str, recipe: Recipe = WARM) -> Path:
    """Finish an adapter as a training does, and make it champion."""
    folder = train.adapter_folder(made, Path(snapshot))
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    body = train.made_from(made, Path(snapshot), train.find_training_start(made))
    manifest.write(folder, kind="adapter", now=NOW, body=body)
    tags = {version_tags.EVIDENCE_TAG: f"of {folder.name}", version_tags.ADAPTER_TAG: folder.name}
    run_id = tracking.open_run(made.workload, folder.name, params={}, tags={})
    version = registry.register_version(
        made.workload,
        run_id,
        folder,
        served=ServingParameters(
            base=str(made.base),
            base_hash=base.content_hash(made.base),
            prompt_template=chat_templates.template_hash(made.base),
            precision="nf4",
            max_new_tokens=8,
        ),
        tags=tags,
        sign=lambda _: None,  # nobody loads it
    )
    registry.put_alias(made.workload, version_tags.CHAMPION, version.number)
    return folder


def test_without_a_champion_it_begins_with_the_base(home: Path, base_model: Path):
    start = train.find_training_start(workload("first", base_model))
    assert start == train.TrainingStart(None, "there is no champion yet")


def test_a_champion_is_the_warm_start_and_is_not_trained_again_on_its_own_rows(
    home: Path, base_model: Path
):
    made = workload("second", base_model)
    champion = crowned(home, made, "s1")
    assert train.find_training_start(made).adapter == champion
    assert train.adapter_folder(made, Path("s1")) == champion
    child = crowned(home, made, "s2")
    assert child != champion
    assert manifest.read(child)["warm_start"] == champion.name
    assert train.adapter_folder(made, Path("s2")) == child


def test_a_recipe_without_warm_start_has_none(home: Path, base_model: Path):
    crowned(home, workload("third", base_model), "s1")
    cold = workload("third", base_model, Recipe())
    assert train.find_training_start(cold).adapter is None


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        pytest.param(Recipe(warm_start=True, r=8), "its r is 16, the recipe's 8", id="shape"),
        pytest.param(WARM, "has learned from rows that were erased", id="tainted"),
        pytest.param(WARM, "is not at ", id="gone"),
    ],
)
def test_a_champion_that_can_not_be_a_warm_start_is_skipped_with_the_reason(
    home: Path, base_model: Path, recipe: Recipe, reason: str, request: pytest.FixtureRequest
):
    name = f"left-{request.node.callspec.id}"
    champion = crowned(home, workload(name, base_model), "s1")
    if name == "left-tainted":
        MlflowClient().set_model_version_tag(name, "1", version_tags.TAINTED_TAG, "c1")
    if name == "left-gone":
        (champion / manifest.NAME).unlink()
    start = train.find_training_start(workload(name, base_model, recipe))
    assert start.adapter is None
    assert reason in start.reason
