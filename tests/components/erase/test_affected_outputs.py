"""Outputs of erased rows are traced, including warm starts and teachers."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.erase import affected_outputs
from components.erase.affected_outputs import DamagedOutputError, Output, Outputs
from components.store import manifest
from tests.support.logs import NOW


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    """Snapshots of Ann's row and of Bob's, adapters on both, and some that went on from those."""
    kinds = ("snapshots", "adapters", "scorecards", "evidence", "jobs")
    made = Outputs(*(tmp_path / kind for kind in kinds))
    for key, row in {"of-ann": "i1", "of-bob": "i2"}.items():
        folder = made.snapshots / "w" / key
        folder.mkdir(parents=True)
        rows = [{"example_id": f"e-{row}", "interaction_ids": [row]}]
        pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    adapter(made, "ann", "of-ann", None)
    adapter(made, "bob", "of-bob", None)
    adapter(made, "child", "of-bob", "ann")
    adapter(made, "grandchild", "of-bob", "child")
    adapter(made, "cousin", "of-bob", "bob")
    adapter(made, "pupil", "of-bob", None, teacher="/elsewhere/adapters/w/child")
    begun = made.jobs / "train-begun"
    begun.mkdir(parents=True)
    (made.adapters / "w" / "begun").mkdir()
    spec = {"snapshot": "/elsewhere/of-bob", "warm_start": "/elsewhere/grandchild"}
    (begun / "spec.json").write_text(json.dumps(spec))
    return made


def adapter(
    outputs: Outputs, key: str, snapshot: str, earlier: str | None, teacher: str | None = None
) -> None:
    folder = outputs.adapters / "w" / key
    folder.mkdir(parents=True)
    objective = {"kind": "sft"} if teacher is None else {"teacher_model_name_or_path": teacher}
    body = {"snapshot": snapshot, "warm_start": earlier, "recipe": {"objective": objective}}
    manifest.write(folder, kind="adapter", now=NOW, body=body)


def test_adapters_warm_started_from_or_taught_by_a_tainted_one_are_tainted(
    outputs: Outputs,
):
    lineage = affected_outputs.trace(outputs, {"i1"}.__contains__)
    keys = {output.key for output in lineage.tainted if output.kind == "adapter"}
    assert keys == {"ann", "child", "grandchild", "begun", "pupil"}


def test_a_measured_pair_taints_scorecard_and_evidence_but_no_adapter(
    outputs: Outputs,
):
    pair = {"preference_id": "p-i3", "interaction_ids": ["i3"], "feedback_ids": ["f3"]}
    table = pa.Table.from_pylist([pair])
    pq.write_table(table, outputs.snapshots / "w" / "of-bob" / "holdout_preferences.parquet")
    for key, asked in {"asked": "p-i3", "another": "p-i4"}.items():
        folder = outputs.scorecards / "w" / key
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist([{"example_id": asked}]), folder / "samples.parquet")
        shown = outputs.evidence / "w" / f"evidence-{key}"
        shown.mkdir(parents=True)
        subject = {"snapshot": "gone", "guard_scorecards": ["other", key]}
        (shown / "verdict.json").write_text(json.dumps({"subject": subject}))
    lineage = {
        (output.kind, output.key)
        for output in affected_outputs.trace(outputs, {"f3"}.__contains__).tainted
    }
    assert lineage == {
        ("snapshot", "of-bob"),
        ("scorecard", "asked"),
        ("evidence", "evidence-asked"),
    }


def test_a_scorecard_with_an_erased_row_among_its_examples_is_tainted(outputs: Outputs):
    for key in ("of-ann", "of-bob", None):
        folder = outputs.scorecards / "w" / f"shown-{key}"
        folder.mkdir(parents=True)
        conditions = {"num_fewshot": 2, "examples": key} if key else {"num_fewshot": 0}
        manifest.write(
            folder, kind="scorecard", now=NOW, body={"base": "b1", "conditions": conditions}
        )
    lineage = affected_outputs.trace(outputs, {"i1"}.__contains__)
    keys = {output.key for output in lineage.tainted if output.kind == "scorecard"}
    assert keys == {"shown-of-ann"}


def half_written(
    folder: Path, name: str, content: bytes = b"PAR1 and the first of many rows"
) -> None:
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)


def test_what_a_killed_process_has_half_written_is_listed_and_no_key_is_tainted_by_it(
    outputs: Outputs,
):
    """The same key may be finished later, without the rows."""
    half_written(outputs.snapshots / "w" / "killed", "train.parquet")
    half_written(outputs.scorecards / "w" / "killed", "samples.parquet")
    half_written(outputs.scorecards / "w" / "empty", "samples.parquet", b"")
    half_written(outputs.evidence / "w" / "killed", "verdict.json", b'{"subject": {"snap')
    (outputs.scorecards / "w" / "begun").mkdir()
    assert affected_outputs.half_written(outputs) == [
        Output("snapshot", "w", "killed"),
        Output("scorecard", "w", "empty"),
        Output("scorecard", "w", "killed"),
        Output("evidence", "w", "killed"),
    ]
    tainted = affected_outputs.trace(outputs, {"i2"}.__contains__).tainted
    assert {output.key for output in tainted if output.kind != "adapter"} == {"of-bob"}


def test_a_finished_output_that_is_damaged_is_named(outputs: Outputs):
    folder = outputs.snapshots / "w" / "damaged"
    half_written(folder, "train.parquet")
    manifest.write(folder, kind="snapshot", now=NOW, body={})
    with pytest.raises(DamagedOutputError, match="w/damaged: a file of it is damaged"):
        affected_outputs.trace(outputs, {"i1"}.__contains__)


def test_an_adapter_whose_snapshot_is_unreadable_is_named(outputs: Outputs):
    record = outputs.adapters / "w" / "ann" / manifest.NAME
    record.write_text("")
    with pytest.raises(DamagedOutputError, match=f"{record} can't be read"):
        affected_outputs.trace(outputs, {"i1"}.__contains__)
