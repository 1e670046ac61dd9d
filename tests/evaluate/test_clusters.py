"""Requests that are not independent are one cluster: in the snapshot, its manifest and the task."""

from pathlib import Path

import pyarrow.parquet as pq
from transformers import AutoTokenizer

from components import manifest, warehouse
from components.collect import interactions
from components.curate import pipeline
from components.curate.settings import Rules
from components.dataset import snapshot
from components.dataset.snapshot import Snapshot
from components.evaluate import measurement, task
from components.evaluate.settings import EvaluationSettings
from components.schema import Json
from components.scorecard import LARGEST_CLUSTER
from tests import logs

TURNS = 3
TOPICS = ("refund", "parcel", "invoice", "voucher", "account")


def newest_only(conversation: int, turn: int, **more: Json) -> dict[str, Json]:
    """Write a turn of an application that sends only the newest message of a conversation."""
    said = f"{TOPICS[conversation % 5]} {conversation} {turn}"
    return logs.interaction(
        said,
        response_id=f"r{conversation}-{turn}",
        timestamp=conversation * 10 + turn,
        conversation_id=f"c{conversation}",
        **more,
    )


def freeze(folder: Path, lines: list[dict[str, Json]], split_by: str) -> Snapshot:
    shares = {"holdout_share": 0.4, "validation_share": 0.0}
    rules = Rules.model_validate({**shares, "split_by": split_by})
    with warehouse.connect(folder / "w.duckdb") as con:
        interactions.load(con, logs.write(folder / "log.jsonl", lines), now=logs.NOW)
        pipeline.curate(con, "weather", rules, now=logs.NOW)
        return snapshot.freeze(con, folder / "snapshots", "weather", rules=rules, now=logs.NOW)


def test_turns_of_a_conversation_are_one_cluster_though_only_the_newest_message_is_sent(
    tmp_path: Path, tiny_base: Path
):
    lines = [newest_only(n, turn) for n in range(100) for turn in range(TURNS)]
    frozen = freeze(tmp_path, lines, "conversation")
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    documents = task.read(frozen.path, tokenizer, None).documents
    clusters = {document["cluster_id"] for document in documents}
    assert (len(documents), len(clusters)) == (40 * TURNS, 40)
    body = manifest.read(frozen.path)
    assert body["clusters"] == {"train": 60, "validation": 0, "holdout": 40}
    assert body["largest_cluster"] == TURNS


def test_a_scorecard_says_how_large_a_cluster_can_be(tmp_path: Path, tiny_base: Path):
    """The gate has to know it, whichever clusters the holdout happens to have drawn."""
    lines = [newest_only(n, turn) for n in range(30) for turn in range(TURNS if n else 7)]
    frozen = freeze(tmp_path, lines, "conversation")
    asked, *baselines = measurement.measurements(
        frozen.path, tiny_base, {"base": None}, tmp_path / "cards", EvaluationSettings()
    )
    assert (asked.model, len(baselines)) == ("base", 2)
    assert asked.body["conditions"][LARGEST_CLUSTER] == 7  # pyright: ignore[reportArgumentType, reportCallIssue, reportIndexIssue, reportOptionalSubscript] - our own body


def test_a_cluster_is_named_by_its_smallest_request_on_the_side(tmp_path: Path):
    lines = [newest_only(n, turn) for n in range(20) for turn in range(TURNS)]
    frozen = freeze(tmp_path, lines, "conversation")
    for side in ("train", "holdout"):
        rows = pq.read_table(frozen.path / f"{side}.parquet").to_pylist()
        members: dict[str, list[str]] = {}
        for row in rows:
            members.setdefault(row["cluster"], []).append(row["example_id"])
        assert {name: min(ids) for name, ids in members.items()} == {name: name for name in members}
