"""The five-key log of NVIDIA's blueprint: its records are the canonical form itself."""

from collections.abc import Iterable, Iterator

from components.collect.record import Defaults, Found, Refused, Row
from components.schema import Json

NAME = "fivekey"
KEYS = frozenset({"timestamp", "workload_id", "client_id", "request", "response"})


def claims(value: dict[str, Json]) -> bool:
    """Take what has all five keys."""
    return value.keys() >= KEYS


def read(rows: Iterable[Row], defaults: Defaults) -> Iterator[Found | Refused]:
    """Pass records on as they are, with the workload and the client that they leave out."""
    for row in rows:
        yield Found(row, "interactions", _complete(row.value, defaults))


def _complete(value: dict[str, Json], defaults: Defaults) -> dict[str, Json]:
    """Fill in what is missing where a default is known; else the same object comes back."""
    missing: dict[str, Json] = {}
    if defaults.workload_id and value.get("workload_id") in (None, ""):
        missing["workload_id"] = defaults.workload_id
    if defaults.client_id and "client_id" not in value:
        missing["client_id"] = defaults.client_id
    return value | missing if missing else value
