"""The ledger in the warehouse: finished outputs, and what was erased."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from components import manifest
from components.warehouse import Connection


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided on an evidence; where several had to approve, by all of them.

    ``link`` is the place of the last word in the chain of decisions, with its digest.
    """

    workload: str
    evidence: str
    decision: Literal["approve", "reject"]
    approver: str
    comment: str
    flow_run_id: str
    decided_at: datetime
    link: str = ""


def record_output(con: Connection, workload: str, folder: Path, *, now: datetime) -> None:
    """Note a finished output folder; noting it twice changes nothing."""
    body = manifest.read(folder)
    con.execute(
        """
        insert into raw.manifests by name
        select
            $key as key, $kind as kind, $workload as workload_id, $path as path,
            $manifest::json as manifest, $now as recorded_at
        where not exists (
            select 1
            from raw.manifests
            where workload_id = $workload and kind = $kind and key = $key
        )
        """,
        {
            "key": body["key"],
            "kind": body["kind"],
            "workload": workload,
            "path": str(folder),
            "manifest": json.dumps(body),
            "now": now,
        },
    )


def erasure_of(con: Connection, keys: Sequence[str]) -> str | None:
    """Give the certificate of an erasure that tainted one of the outputs; ``None`` if none did."""
    found = con.execute(
        "select min(certificate_id) from raw.tainted where list_contains($keys, key)",
        {"keys": list(keys)},
    ).fetchall()
    return found[0][0]
