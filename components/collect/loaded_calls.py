"""Remember of which parts calls were loaded, so that a part sent again is not another call."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from components.collect.sources.otlp import Key, LoadedCalls
from components.store import warehouse
from components.store.warehouse import Connection

REMEMBERED = timedelta(days=7)
"""How long after its load a call's parts are known: longer than exporters try again."""


def read(con: Connection, client: str, keys: Iterable[Key]) -> LoadedCalls:
    """Return which of a client's calls were loaded before, and of which parts."""
    digests = {_digest(key): key for key in keys}
    parts = defaultdict[Key, set[bytes]](set)
    if digests:
        with warehouse.present(con, "arrived", {"call_digest": [*digests]}):
            for row in warehouse.select(con, "temp/loaded_parts", client_id=client):
                parts[digests[str(row["call_digest"])]].add(bytes.fromhex(str(row["part_digest"])))
    return LoadedCalls({key: frozenset(known) for key, known in parts.items()})


def remember(con: Connection, *, client: str, calls: LoadedCalls, now: datetime) -> None:
    """Store the calls of a load, in its transaction, and forget those of long ago."""
    con.execute(
        "delete from raw.loaded_parts where loaded_at < $before", {"before": now - REMEMBERED}
    )
    rows: list[warehouse.Row] = [
        {
            "client_id": client,
            "call_digest": _digest(key),
            "part_digest": part.hex(),
            "loaded_at": now,
        }
        for key, parts in calls.now.items()
        if key not in calls.earlier
        for part in sorted(parts)
    ]
    warehouse.insert(con, "raw.loaded_parts", rows)


def _digest(key: Key) -> str:
    return hashlib.md5(json.dumps(key).encode(), usedforsecurity=False).hexdigest()
