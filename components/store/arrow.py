"""Let DuckDB read Arrow tables in pieces, without keeping their memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pyarrow as pa
from pyarrow.lib import StringBuilder

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""From which Arrow counts; the warehouse's times are in UTC."""

CHUNK_ROWS = 2048
"""DuckDB's threads share a table out by chunks; in one piece it would keep one of them busy."""


class ArrowColumn(Protocol):
    """What is used of a column of an Arrow table."""

    @property
    def null_count(self) -> int:
        """Count its nulls."""
        ...

    def to_pylist(self) -> Sequence[Any]:
        """Give its values."""
        ...


class ArrowSchema(Protocol):
    """What is used of an Arrow schema; pyarrow has no types."""

    @property
    def names(self) -> Sequence[str]:
        """The columns' names."""
        ...

    def __arrow_c_schema__(self) -> object:
        """Give it through the PyCapsule interface."""
        ...


class ArrowBatch(Protocol):
    """What is used of an Arrow record batch."""

    @property
    def schema(self) -> ArrowSchema:
        """Its columns' names and types."""
        ...

    @property
    def columns(self) -> Sequence[Any]:
        """Its columns' values."""
        ...


class ArrowTable(Protocol):
    """What is used of an Arrow table."""

    @property
    def schema(self) -> ArrowSchema:
        """Its columns' names and types."""
        ...

    def to_batches(self) -> Sequence[object]:
        """Give its rows as they lie in memory."""
        ...

    def column(self, name: str, /) -> "ArrowColumn":
        """Give the column of that name."""
        ...

    def append_column(self, field_: str, column: object, /) -> "ArrowTable":
        """Give it with another column."""
        ...


def rows_of(batch: ArrowBatch) -> Iterator[dict[str, Any]]:
    """Go through a batch's rows as Python objects.

    As ``to_pylist``, but that imports pandas, for half a second, where a column holds times.
    """
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
    """Put texts into an Arrow column; ``pyarrow.array`` would import pandas, for half a second."""
    builder = StringBuilder()
    builder.append_values([*values])
    return builder.finish()


class ShownTable:
    """A table that DuckDB reads; until its transaction ends it holds on to what was registered.

    So that must be something that the table can be taken out of (1 GB a million rows, else).
    """

    def __init__(
        self, columns: Mapping[str, Sized] | ArrowTable, chunk_rows: int = CHUNK_ROWS
    ) -> None:
        table = pa.table(dict(columns) if isinstance(columns, Mapping) else columns)
        self._table = pa.Table.from_batches(table.to_batches(chunk_rows), table.schema)

    def take_back(self) -> None:
        """Let go of the rows."""
        self._table = pa.Table.from_batches([], self._table.schema)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Give the rows as an Arrow stream (the PyCapsule interface)."""
        return self._table.__arrow_c_stream__(requested_schema)


class ArrowStream:
    """Tables that DuckDB reads once, one after the other, while they are made."""

    def __init__(self, schema: ArrowSchema, tables: Iterator[ArrowTable]) -> None:
        self._schema = schema
        self._tables = tables
        self.error: BaseException | None = None
        """What ended the tables before their end: Arrow would make a text of it."""

    def __arrow_c_schema__(self) -> object:
        """Tell what columns there are, reading nothing."""
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Give the rows as an Arrow stream (the PyCapsule interface)."""
        reader = pa.RecordBatchReader.from_batches(self._schema, self._chunks())
        return reader.__arrow_c_stream__(requested_schema)

    def _chunks(self) -> Iterator[object]:
        try:
            for table in self._tables:
                yield from table.to_batches()
        except BaseException as error:  # noqa: BLE001 - raised again by who reads the stream
            self.error = error
