"""Hand rows to a source as the containers do, for tests to look at what it makes of them."""

import json
from collections.abc import Iterable

from components.collect.source import Defaults, ParsedRecord, RejectedRecord, Source, SourceRow
from components.schema import Json

DEFAULTS = Defaults(workload_id="support", client_id="shop")


def rows(values: Iterable[dict[str, Json]]) -> list[SourceRow]:
    """Number objects as the lines of a file."""
    return [SourceRow(n, json.dumps(value), value) for n, value in enumerate(values, start=1)]


def read(source: Source, *values: dict[str, Json]) -> list[ParsedRecord | RejectedRecord]:
    """Read objects as one file of ``source``."""
    return list(source.read(rows(values), DEFAULTS))


def record(source: Source, *values: dict[str, Json]) -> dict[str, Json]:
    """Read a file that holds one record, and give that."""
    (only,) = read(source, *values)
    assert isinstance(only, ParsedRecord), only
    return only.record


def records(source: Source, *values: dict[str, Json]) -> list[dict[str, Json]]:
    """Read a file of which nothing is refused."""
    read_all = read(source, *values)
    found = [one for one in read_all if isinstance(one, ParsedRecord)]
    assert len(found) == len(read_all), read_all
    return [one.record for one in found]


def reason(source: Source, *values: dict[str, Json]) -> str:
    """Read a file whose only row is refused, and give the reason."""
    (only,) = read(source, *values)
    assert isinstance(only, RejectedRecord), only
    return only.reason
