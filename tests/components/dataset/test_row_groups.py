"""A snapshot's rows are written in groups of one size, in whatever batches they are read."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.dataset import example_rows
from components.dataset.example_rows import COPIED, ROW_GROUP, SCHEMA

TEXTS = {
    "messages": '[{{"role": "user", "content": "How is {n}?"}}]',
    "tools": "[]",
    "answer": '{{"text": "It is {n}.", "calls": []}}',
}


def rows(count: int) -> Any:
    """Return rows of ``marts/snapshot``."""
    columns = {}
    for name in COPIED:
        kind = SCHEMA.field(name).type
        texts = [TEXTS.get(name, f"{name} {{n}}").format(n=n) for n in range(count)]
        if pa.types.is_list(kind):
            columns[COPIED[name]] = pa.array(
                [[text, text][n % 3 :] for n, text in enumerate(texts)]
            )
        elif pa.types.is_string(kind):
            columns[COPIED[name]] = pa.array(texts)
        else:
            columns[COPIED[name]] = pa.array(range(count), pa.int64()).cast(kind)
    texts = [TEXTS["answer"].format(n=n) for n in range(count)]
    return pa.table({**columns, "answer": pa.array(texts)})


@pytest.mark.parametrize("count", [0, 1, ROW_GROUP, 2 * ROW_GROUP + 1])
def test_the_batches_that_are_read_do_not_change_what_is_written(tmp_path: Path, count: int):
    contents: set[bytes] = set()
    for size in (700, ROW_GROUP, 5000):
        path = tmp_path / f"{size}.parquet"
        example_rows.write(path, rows(count).to_batches(size), None)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    written = pq.ParquetFile(tmp_path / "700.parquet")
    groups = [written.metadata.row_group(n).num_rows for n in range(written.num_row_groups)]
    assert groups == [ROW_GROUP] * (count // ROW_GROUP) + [1] * (count % ROW_GROUP)
    last = written.read().to_pylist()[-1:]
    assert [row["prompt"] for row in last] == [
        [{"role": "user", "content": f"How is {count - 1}?"}] for _ in last
    ]
