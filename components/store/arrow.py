"""Let DuckDB read Arrow tables in pieces, without keeping their memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute
from pyarrow.lib import StringBuilder

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Zero of Arrow's timestamps; the warehouse's times are in UTC."""

compute: Any = pyarrow.compute
"""Arrow's functions on columns, which pyarrow makes when it is imported: type checkers see none."""

CHUNK_ROWS = 2048
"""DuckDB's threads divide a table by chunks; a table of one chunk keeps only one of them busy."""


class ArrowColumn(Protocol):
    """The part of an Arrow column that is used."""

    null_count: int

    def to_pylist(self) -> Sequence[Any]:
        """Return its values."""
        ...


class ArrowSchema(Protocol):
    """The part of an Arrow schema that is used; pyarrow has no types."""

    names: Sequence[str]

    def __arrow_c_schema__(self) -> object:
        """Export the schema (PyCapsule interface)."""
        ...


class ArrowBatch(Protocol):
    """The part of an Arrow record batch that is used."""

    schema: ArrowSchema
    columns: Sequence[Any]

    def __len__(self) -> int:
        """Return the number of its rows."""
        ...


class ArrowTable(Protocol):
    """The part of an Arrow table that is used."""

    schema: ArrowSchema
    num_rows: int

    def to_batches(self) -> Sequence[object]:
        """Return its rows in batches, without a copy."""
        ...

    def column(self, name: str, /) -> "ArrowColumn":
        """Return the column with that name."""
        ...

    def append_column(self, field_: str, column: object, /) -> "ArrowTable":
        """Return the table with another column."""
        ...


def rows_of(batch: ArrowBatch) -> Iterator[dict[str, Any]]:
    """Yield a batch's rows as Python objects."""
    # As `to_pylist`, but that imports pandas (half a second) where a column holds times.
    names, columns = batch.schema.names, map(_values, batch.columns)
    for row in zip(*columns, strict=True):
        yield dict(zip(names, row, strict=True))


def _values(column: Any) -> Sequence[Any]:  # noqa: ANN401 - pyarrow has no types
    if not pa.types.is_timestamp(column.type) or column.type.unit != "us":
        return column.to_pylist()
    epoch = EPOCH if column.type.tz else EPOCH.replace(tzinfo=None)
    counted = column.view(pa.int64()).to_pylist()
    return [None if n is None else epoch + timedelta(microseconds=n) for n in counted]


def texts(values: Iterable[str]) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return an Arrow column of strings."""
    # `pyarrow.array` would import pandas, which takes half a second.
    builder = StringBuilder()
    builder.append_values([*values])
    return builder.finish()


class ShownTable:
    """A table that DuckDB reads, whose rows can be released.

    DuckDB keeps a registered object until its transaction ends, which would keep the rows in memory
    as well (1 GB a million rows).
    """

    def __init__(
        self, columns: Mapping[str, Sized] | ArrowTable, chunk_rows: int = CHUNK_ROWS
    ) -> None:
        table = pa.table(dict(columns) if isinstance(columns, Mapping) else columns)
        self._table = pa.Table.from_batches(table.to_batches(chunk_rows), table.schema)

    def release(self) -> None:
        """Release the rows."""
        self._table = pa.Table.from_batches([], self._table.schema)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Export the rows as an Arrow stream (PyCapsule interface)."""
        return self._table.__arrow_c_stream__(requested_schema)


class ArrowStream:
    """Tables that DuckDB reads once, one after another, as they are produced."""

    def __init__(self, schema: ArrowSchema, tables: Iterator[ArrowTable]) -> None:
        self._schema = schema
        self._tables = tables
        self.error: BaseException | None = None
        """The error that ended the tables early; Arrow would pass on only its text."""

    def __arrow_c_schema__(self) -> object:
        """Export the schema, without reading any table."""
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Export the rows as an Arrow stream (PyCapsule interface)."""
        reader = pa.RecordBatchReader.from_batches(self._schema, self._chunks())
        return reader.__arrow_c_stream__(requested_schema)

    def _chunks(self) -> Iterator[object]:
        try:
            for table in self._tables:
                yield from table.to_batches()
        except BaseException as error:  # noqa: BLE001 - raised again by the reader of the stream
            self.error = error
