"""What a version of ours answered, and nobody corrected, is named where it is the reference."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.dataset import snapshot_figures
from components.schema import Answer, Json
from components.store import warehouse
from tests.support import logs, warehouses

SUNNY, RAINY = Answer("Sunny."), Answer("Rainy.")


@pytest.fixture
def ids(tmp_path: Path) -> list[str]:
    """Load three interactions, of which versions 2 and 10 answered the first two."""
    served: list[Json] = [{"version": "2"}, {"version": "10"}, {"version": None}]
    lines = [
        logs.interaction(f"question {n}", response_id=f"r{n}", served=each)
        for n, each in enumerate(served)
    ]
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        logs.load(con, logs.write(tmp_path / "log.jsonl", lines), now=logs.NOW)
        rows = warehouse.rows(
            con, "from raw.contents order by extra ->> '$.served.version' desc nulls last"
        )
    return [str(row["interaction_id"]) for row in rows]


def sentences(
    folder: Path, rows: Sequence[tuple[list[str], Answer, Answer, str | None]]
) -> list[str]:
    columns = [
        {
            "interaction_ids": names,
            "answer": reference.to_json(),
            "logged_answer": logged.to_json(),
            "acceptable": acceptable,
        }
        for names, reference, logged, acceptable in rows
    ]
    schema = pa.schema(
        [("interaction_ids", pa.list_(pa.string()))]
        + [(name, pa.string()) for name in ("answer", "logged_answer", "acceptable")]
    )
    pq.write_table(pa.Table.from_pylist(columns, schema), folder / "holdout.parquet")
    location = warehouses.location(folder / "warehouse.duckdb")
    return snapshot_figures.own_reference_sentences(location, folder)


def test_references_of_our_own_versions_are_counted(tmp_path: Path, ids: list[str]) -> None:
    first, second, production = ids
    rows = [
        ([first], SUNNY, SUNNY, None),
        ([second, first], SUNNY, SUNNY, None),
        ([production], SUNNY, SUNNY, None),
        ([first, production], SUNNY, SUNNY, None),
        ([first], RAINY, SUNNY, None),
        ([first], SUNNY, SUNNY, json.dumps([])),
    ]
    (sentence,) = sentences(tmp_path, rows)
    assert sentence.startswith(
        "Of 6 held-out requests, 2 have as their reference what versions 2, 10 answered and nobody "
        "corrected."
    )


def test_without_such_references_nothing_is_said(tmp_path: Path, ids: list[str]) -> None:
    assert sentences(tmp_path, [([ids[0]], RAINY, SUNNY, None)]) == []
    assert sentences(tmp_path, [([ids[2]], SUNNY, SUNNY, None)]) == []
