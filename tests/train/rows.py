"""A snapshot with rows to train on: what is asked, and what is to be answered."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def snapshot(folder: Path, pairs: list[tuple[str, str]], weight: float = 1.0) -> Path:
    """Write ``train.parquet`` as a frozen snapshot has it, with the columns that training reads."""
    rows = [
        {
            "prompt": [{"role": "user", "content": asked}],
            "completion": [{"role": "assistant", "content": answer}],
            "weight": weight,
        }
        for asked, answer in pairs
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    return folder
