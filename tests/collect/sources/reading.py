"""Hand rows to a source as the containers do, for tests to look at what it makes of them."""

import json
from collections.abc import Iterable

from components.collect.record import Defaults, Found, Refused, Row, Source
from components.schema import Json

DEFAULTS = Defaults(workload_id="support", client_id="shop")


def rows(values: Iterable[dict[str, Json]]) -> list[Row]:
    """Number objects as the lines of a file."""
    return [Row(n, json.dumps(value), value) for n, value in enumerate(values, start=1)]


def read(source: Source, *values: dict[str, Json]) -> list[Found | Refused]:
    """Read objects as one file of ``source``."""
    return list(source.read(rows(values), DEFAULTS))


def record(source: Source, *values: dict[str, Json]) -> dict[str, Json]:
    """Read a file that holds one record, and give that."""
    (only,) = read(source, *values)
    assert isinstance(only, Found), only
    return only.record


def records(source: Source, *values: dict[str, Json]) -> list[dict[str, Json]]:
    """Read a file of which nothing is refused."""
    read_all = read(source, *values)
    found = [one for one in read_all if isinstance(one, Found)]
    assert len(found) == len(read_all), read_all
    return [one.record for one in found]


def reason(source: Source, *values: dict[str, Json]) -> str:
    """Read a file whose only row is refused, and give the reason."""
    (only,) = read(source, *values)
    assert isinstance(only, Refused), only
    return only.reason
