"""Parquet files that a curation leaves to the next; a file's name is the digest of its bytes."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

PART_ROWS = 8192
"""Rows of a file: a killed curation loses at most the work on so many."""

SUFFIX, PARTIAL = ".parquet", ".partial"


def whole(folder: Path) -> Iterator[Path]:
    """Yield the whole files of a folder; delete those that are damaged or unfinished."""
    for path in sorted(folder.glob("*")):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")  # passes through a small buffer
        if path.name == digest.hexdigest() + SUFFIX:
            yield path
        else:
            path.unlink()


def read(path: Path, columns: Sequence[str] | None = None) -> Any:  # noqa: ANN401 - no types
    """Return a file's rows as an Arrow table."""
    with pq.ParquetFile(path) as file:
        return file.read(columns=columns, use_threads=False)


def write(folder: Path, table: Any) -> Path:  # noqa: ANN401 - pyarrow has no types
    """Write an Arrow table as a file, and return its path."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="lz4")
    content = buffer.getvalue()
    path = folder / (hashlib.sha256(content).hexdigest() + SUFFIX)
    partial = path.with_suffix(PARTIAL)
    folder.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(content)
    partial.replace(path)
    return path


def write_parts(folder: Path, table: Any) -> Iterator[tuple[Path, int]]:  # noqa: ANN401
    """Write an Arrow table as files of ``PART_ROWS``; yield the path and the rows of each."""
    for start in range(0, len(table), PART_ROWS):
        rows = table.slice(start, PART_ROWS)
        yield write(folder, rows), len(rows)
