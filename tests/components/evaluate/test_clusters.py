"""Requests that are not independent are one cluster: in the snapshot, its manifest and the task."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from components.curate import curate_workload
from components.curate.settings import Rules
from components.dataset import freeze_snapshot
from components.dataset.snapshot_figures import Snapshot
from components.evaluate import holdout_task, score_conditions
from components.evaluate.settings import EvaluationSettings
from components.gate import comparison, significance
from components.schema import Json
from components.scorecard import CLUSTER_CAP, HOLDOUT, LARGEST_CLUSTER, MeasuredSide
from components.store import manifest
from tests.support import cards, logs, warehouses

TURNS = 3
TOPICS = ("refund", "parcel", "invoice", "voucher", "account")


def newest_only(conversation: int, turn: int, **more: Json) -> dict[str, Json]:
    """Log a turn of an application that sends only a conversation's newest message."""
    text = f"{TOPICS[conversation % 5]} {conversation} {turn}"
    return logs.interaction(
        text,
        response_id=f"r{conversation}-{turn}",
        timestamp=conversation * 10 + turn,
        conversation_id=f"c{conversation}",
        **more,
    )


def freeze(
    folder: Path, lines: list[dict[str, Json]], split_by: str, **more: float | None
) -> Snapshot:
    shares = {"holdout_share": 0.4, "validation_share": 0.0, **more}
    rules = Rules.model_validate({**shares, "split_by": split_by})
    with warehouses.connect(folder / "w.duckdb") as con:
        logs.load(con, logs.write(folder / "log.jsonl", lines), now=logs.NOW)
        curate_workload.curate(con, "weather", rules, now=logs.NOW)
        return freeze_snapshot.freeze(
            con, folder / "snapshots", "weather", rules=rules, now=logs.NOW
        )


def test_turns_of_a_conversation_are_one_cluster_even_if_only_the_newest_message_is_sent(
    tmp_path: Path, tiny_base: Path
):
    lines = [newest_only(n, turn) for n in range(100) for turn in range(TURNS)]
    frozen = freeze(tmp_path, lines, "conversation")
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    documents = holdout_task.read_side(frozen.path, tokenizer, None).documents
    clusters = {document["cluster_id"] for document in documents}
    assert (len(documents), len(clusters)) == (40 * TURNS, 40)
    body = manifest.read(frozen.path)
    assert body["clusters"] == {"train": 60, "validation": 0, "holdout": 40}
    assert body["largest_cluster"] == TURNS


def test_a_scorecard_has_the_largest_possible_cluster(tmp_path: Path, tiny_base: Path):
    """The gate needs it, whichever clusters the holdout has drawn."""
    lines = [newest_only(n, turn) for n in range(30) for turn in range(TURNS if n else 7)]
    frozen = freeze(tmp_path, lines, "conversation")
    asked, *baselines = score_conditions.measurements(
        frozen.path, tiny_base, {"base": None}, tmp_path / "cards", EvaluationSettings()
    )
    assert (asked.model, len(baselines)) == ("base", 2)
    assert asked.body["conditions"][LARGEST_CLUSTER] == 7  # pyright: ignore[reportArgumentType, reportCallIssue, reportIndexIssue, reportOptionalSubscript] - our own body


@pytest.mark.parametrize(
    ("cap", "test"),
    [
        pytest.param(
            None,
            "bets on clusters of up to 7 requests, each counting as at most 1",
            id="all",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            2,
            "bets on clusters of up to 2 requests, each counting as at most 1",
            id="two",
            marks=pytest.mark.slow,
        ),
        pytest.param(1, "exact McNemar", id="one"),
        pytest.param(
            9,
            "bets on clusters of up to 7 requests, each counting as at most 1",
            id="more",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_gate_assumes_no_cluster_larger_than_the_cap(
    tmp_path: Path, tiny_base: Path, cap: int | None, test: str
):
    lines = [newest_only(n, turn) for n in range(30) for turn in range(TURNS if n else 7)]
    frozen = freeze(tmp_path, lines, "conversation", holdout_per_cluster=cap, validation_share=0.2)
    ours, theirs = (
        cards.under(scorecard, **asked(frozen, tiny_base)) for scorecard in cards.pair(30, 9, 9, 9)
    )
    pairs = comparison.pair_scores(ours, theirs, "correct_name", None).pairs
    assert pairs.most == min(7, cap or 7)
    assert significance.superiority(pairs)[0] == test


def test_the_validation_side_has_no_cap(tmp_path: Path, tiny_base: Path):
    lines = [newest_only(n, turn) for n in range(30) for turn in range(TURNS)]
    frozen = freeze(tmp_path, lines, "conversation", holdout_per_cluster=1, validation_share=0.4)
    assert frozen.validation_rows == TURNS * frozen.clusters["validation"]
    assert CLUSTER_CAP in asked(frozen, tiny_base)
    assert CLUSTER_CAP not in asked(frozen, tiny_base, "validation")


def asked(frozen: Snapshot, base: Path, side: MeasuredSide = HOLDOUT) -> dict[str, Json]:
    """Return the conditions of a side's scorecards."""
    cards_root = frozen.path / "cards"
    measurement, *_ = score_conditions.measurements(
        frozen.path, base, {"base": None}, cards_root, EvaluationSettings(), side
    )
    conditions = measurement.body["conditions"]
    assert isinstance(conditions, dict)
    return conditions


def test_a_cluster_is_named_by_its_smallest_request_on_the_side(tmp_path: Path):
    lines = [newest_only(n, turn) for n in range(20) for turn in range(TURNS)]
    frozen = freeze(tmp_path, lines, "conversation")
    for side in ("train", "holdout"):
        rows = pq.read_table(frozen.path / f"{side}.parquet").to_pylist()
        members: dict[str, list[str]] = {}
        for row in rows:
            members.setdefault(row["cluster"], []).append(row["example_id"])
        assert {name: min(ids) for name, ids in members.items()} == {name: name for name in members}
        assert {len(ids) for ids in members.values()} == {TURNS}
