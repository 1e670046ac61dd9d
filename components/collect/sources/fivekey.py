"""The five-key log of NVIDIA's blueprint: its records are the canonical form itself."""

from collections.abc import Iterator

from components.collect.source import Defaults, ParsedRecord, SourceRecord, SourceRow
from components.collect.sources import fields
from components.schema import Json

NAME = "fivekey"
KEYS = frozenset({"timestamp", "workload_id", "client_id", "request", "response"})


def claims(value: dict[str, Json]) -> bool:
    """Claim records with all five keys."""
    return value.keys() >= KEYS


@fields.by_row
def read(row: SourceRow, defaults: Defaults) -> Iterator[SourceRecord]:
    """Yield the record unchanged, with the default workload and client where they are missing."""
    yield ParsedRecord(row, "interactions", complete(row.value, defaults))


def complete(value: dict[str, Json], defaults: Defaults) -> dict[str, Json]:
    """Return the record with defaults filled in; the same object if there are none to fill in."""
    missing: dict[str, Json] = {}
    if defaults.workload_id and value.get("workload_id") in (None, ""):
        missing["workload_id"] = defaults.workload_id
    if defaults.client_id and "client_id" not in value:
        missing["client_id"] = defaults.client_id
    return value | missing if missing else value
