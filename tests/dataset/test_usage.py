"""What production's answers took in tokens: as logged, else as counted, else unknown."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import warehouse
from components.collect import interactions
from components.costs import Usage
from components.dataset import usage
from components.schema import Json
from tests import logs


def holdout(folder: Path, ids: list[str], counts: tuple[int, int] | None) -> Path:
    prompt, answer = counts or (None, None)
    row = {"interaction_ids": ids, "prompt_tokens": prompt, "answer_tokens": answer}
    schema = pa.schema(
        [
            ("interaction_ids", pa.list_(pa.string())),
            ("prompt_tokens", pa.int32()),
            ("answer_tokens", pa.int32()),
        ]
    )
    pq.write_table(pa.Table.from_pylist([row], schema), folder / "holdout.parquet")
    return folder


@pytest.mark.parametrize(
    ("used", "counts", "found"),
    [
        pytest.param(
            {"prompt_tokens": 120, "completion_tokens": 8},
            (90, 5),
            Usage(120, 8, 1, usage.LOGGED),
            id="logged",
        ),
        pytest.param(None, (90, 5), Usage(90, 5, 1, usage.COUNTED), id="counted"),
        pytest.param(None, None, None, id="unknown"),
    ],
)
def test_logged_tokens_go_before_counted_ones(
    tmp_path: Path, used: Json, counts: tuple[int, int] | None, found: Usage | None
) -> None:
    line = logs.interaction()
    response = line["response"]
    assert isinstance(response, dict)
    line["response"] = {**response, "usage": used}
    log = logs.write(tmp_path / "log.jsonl", [line])
    with warehouse.connect(tmp_path / "warehouse.duckdb") as con:
        interactions.load(con, log, now=logs.NOW)
        ids = [str(row["interaction_id"]) for row in warehouse.rows(con, "from raw.interactions")]
        assert usage.production(con, holdout(tmp_path, ids, counts)) == found
