"""An adapter's card lists its scores, its base's and those of untrained baselines."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from components import scorecard
from components.models import adapter_folder
from components.register import model_card
from components.schema import Json
from components.scorecard import CONSTANT, FEW_SHOT, HOLDOUT, NEAREST
from components.store.manifest import AdapterManifest
from tests.support import cards
from tests.support.adapter_folders import NOW, Making

ADAPTER = "a1"


def write(
    root: Path, name: str, adapter: str | None, rights: Sequence[float], **changes: Json
) -> Path:
    """Write a scorecard of the holdout under the usual conditions and those of ``changes``."""
    made = cards.card(rights)
    conditions = {**cards.CONDITIONS, "num_fewshot": 0, **changes}
    body = {"base": "b", "adapter": adapter, "task": HOLDOUT, "conditions": conditions}
    now = NOW + timedelta(minutes=len([*root.glob("*")]))
    scorecard.write(root / name, made.samples, made.metrics, body=body, now=now)
    return root / name


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Scorecards of an adapter and of other models on the same and another holdout."""
    write(tmp_path, "adapter", ADAPTER, [1.0] * 30 + [0.0] * 10)
    write(tmp_path, "base", None, [0.0] * 40)
    write(tmp_path, "older", CONSTANT, [0.0] * 40, examples="s1", baseline=CONSTANT)
    write(tmp_path, "constant", CONSTANT, [1.0] * 35 + [0.0] * 5, examples="s2", baseline=CONSTANT)
    write(tmp_path, "nearest", NEAREST, [1.0] * 8 + [0.0] * 32, examples="s2", baseline=NEAREST)
    write(tmp_path, "elsewhere", FEW_SHOT, [1.0] * 40, holdout_version="v2", num_fewshot=4)
    return tmp_path


def test_the_newest_scorecards_under_equal_conditions_are_used(root: Path) -> None:
    found = model_card.newest_scores(ADAPTER, root.glob("*"))
    assert found is not None
    assert found.base is not None
    assert found.base.scores["name"].value == 0
    values = {name: one.scores["name"].value for name, one in found.baselines.items()}
    assert values == {CONSTANT: 35 / 40, NEAREST: 8 / 40}


def test_the_few_shot_base_is_not_the_base(root: Path) -> None:
    write(root, "few", None, [1.0] * 20 + [0.0] * 20, num_fewshot=4, examples="s2")
    found = model_card.newest_scores(ADAPTER, root.glob("*"))
    assert found is not None
    assert found.base is not None
    assert found.base.scores["name"].value == 0
    assert found.baselines[FEW_SHOT].scores["name"].value == 0.5


def test_the_card_shows_baselines_and_names_the_unbeaten_ones(root: Path, make: Making) -> None:
    adapter = make()
    text = model_card.write_card(
        AdapterManifest.read(adapter),
        adapter_folder.adapter_config(adapter),
        model_card.newest_scores(ADAPTER, root.glob("*")),
        "peft",
    )
    head = "| score | constant | nearest | few-shot | base | adapter | n | clusters |"
    assert head in text.splitlines()
    (row,) = (line for line in text.splitlines() if line.startswith("| name and arguments:"))
    assert "| 87.5% ± 5.3% | 20.0% ± 6.4% | not measured | 0.0% ± 0.0% | 75.0%" in row
    assert row.endswith("| 40 | 40 |")
    assert (
        "- By name and arguments the adapter does not beat a constant answer, which scores 87.5%."
    ) in text.splitlines()
    assert "does not beat the answer to the most similar training request" not in text
