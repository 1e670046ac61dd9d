"""What is put before whoever decides comes from what was measured, and from nothing else."""

import json
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import costs, scorecard
from components.chat import token_counts
from components.costs import Prices, Work
from components.schema import Answer
from components.scorecard import BASE, CHALLENGER, HOLDOUT
from components.store import manifest
from flows import turn_evidence
from flows.settings import Settings
from flows.workload_file import Workload
from tests.support import gate_cases, tiny
from tests.support.cards import pair
from tests.support.logs import NOW


@pytest.fixture
def measured(tmp_path: Path) -> tuple[Settings, Path, Path, dict[str, dict[str, Path]]]:
    """A home with a snapshot, an adapter, and scorecards of it and of its base."""
    snapshot, adapter = tmp_path / "snapshot", tmp_path / "ada"
    for folder in (snapshot, adapter):
        folder.mkdir()
    answer = Answer("Yes").to_json()
    asked = json.dumps([{"role": "user", "content": "Is it raining?"}])
    row = {"interaction_ids": ["i1"], "messages": asked, "tools": "[]", "answer": answer}
    pq.write_table(pa.Table.from_pylist([row]), snapshot / "holdout.parquet")
    made_from = {"snapshot": "s1", costs.TRAINING: asdict(Work(7200.0, "core", 2))}
    manifest.write(adapter, kind="adapter", now=NOW, body=made_from)
    cards: dict[str, dict[str, Path]] = {}
    for role, card in zip((CHALLENGER, BASE), pair(4, 2, 20, 10), strict=True):
        cards[role] = {HOLDOUT: tmp_path / role}
        body = {"base": "b1", "adapter": None, "task": HOLDOUT, "conditions": {}}
        measured = {costs.SPEED: asdict(gate_cases.SPEED)}
        scorecard.write(tmp_path / role, card.samples, card.metrics, body=body | measured, now=NOW)
    return Settings(tmp_path, 1, 2), snapshot, adapter, cards


def test_costs_are_those_of_the_measured_speed_the_training_and_the_logs(
    measured: tuple[Settings, Path, Path, dict[str, dict[str, Path]]], tmp_path: Path
) -> None:
    home, snapshot, adapter, cards = measured
    tiny.tokenizer().save_pretrained(base := tmp_path / "base")
    workload = Workload.model_construct(workload="support", base=base, cost=gate_cases.PRICES)
    figures = turn_evidence.compute_costs(home, workload, snapshot, adapter, cards, "base")
    assert figures.bill.challenger.value == pytest.approx(0.5 * 0.36 / 3600)
    asked, answered = len("Is it raining?") + 2 * token_counts.MESSAGE_TOKENS, len("Yes")
    assert figures.bill.production.value == pytest.approx((asked * 2.5 + answered * 10) / 1e6)
    assert figures.bill.training.value == pytest.approx(0.5)
    assert figures.request["base"].value == figures.request["challenger"].value
    assert figures.usage is not None
    assert figures.usage.source == token_counts.describe_count(1)


def test_without_prices_every_figure_names_the_missing_one(
    measured: tuple[Settings, Path, Path, dict[str, dict[str, Path]]], tmp_path: Path
) -> None:
    home, snapshot, adapter, cards = measured
    workload = Workload.model_construct(workload="support", base=tmp_path, cost=Prices())
    figures = turn_evidence.compute_costs(home, workload, snapshot, adapter, cards, "base")
    assert {cost.value for cost in figures.request.values()} == {None}
    assert "cost.hardware_per_hour" in figures.request["base"].how


def test_the_base_is_shown_too_unless_it_is_the_opponent(
    measured: tuple[Settings, Path, Path, dict[str, dict[str, Path]]],
) -> None:
    *_, cards = measured
    assert [*turn_evidence.other_scorecards(cards, base=True)] == [BASE]
    assert turn_evidence.other_scorecards(cards, base=False) == {}
