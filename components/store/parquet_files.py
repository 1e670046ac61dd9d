"""Read Parquet files of snapshots; pyarrow is loaded only then, as it takes long."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def rows(file: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Return a file's rows, with these columns alone if they are named."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - what checks settings only asks for none

    return pq.read_table(file, columns=columns and [*columns]).to_pylist()


def columns(file: Path) -> list[str]:
    """Return the names of a file's columns."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above

    return pq.read_schema(file).names


def count(file: Path) -> int:
    """Return the number of a file's rows."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above

    return pq.read_metadata(file).num_rows
