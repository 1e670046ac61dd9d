"""The ledger in the warehouse: finished outputs, looks at the holdout, what was erased."""

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


@dataclass(frozen=True, slots=True)
class Look:
    """One comparison on a holdout: whose scorecards, by which metric, on how many requests."""

    workload: str
    holdout_version: str
    challenger_scorecard: str
    opponent_scorecard: str
    metric: str
    requests: int


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


def number_look(con: Connection, look: Look, *, now: datetime) -> int:
    """Give the how-manieth look at its holdout this is, from 1; the same look keeps its number.

    A holdout only grows. Looks at its earlier versions count as well, as long as they had more than
    half of today's requests: else one new request a night would make every look the first.
    """
    compared = {
        "workload": look.workload,
        "challenger": look.challenger_scorecard,
        "opponent": look.opponent_scorecard,
        "metric": look.metric,
    }
    con.execute(
        """
        insert into raw.looks by name
        select
            $workload as workload_id, $challenger as challenger_scorecard,
            $opponent as opponent_scorecard, $metric as metric, $version as holdout_version,
            $requests as requests, $now as looked_at,
            1 + (
                select count(*)
                from raw.looks
                where workload_id = $workload and 2 * requests > $requests
            ) as number
        where not exists (
            select 1
            from raw.looks
            where
                workload_id = $workload and challenger_scorecard = $challenger
                and opponent_scorecard = $opponent and metric = $metric
        )
        """,
        {**compared, "version": look.holdout_version, "requests": look.requests, "now": now},
    )
    found = con.execute(
        """
        select number
        from raw.looks
        where
            workload_id = $workload and challenger_scorecard = $challenger
            and opponent_scorecard = $opponent and metric = $metric
        """,
        compared,
    ).fetchall()
    return int(found[0][0])


def erasure_of(con: Connection, keys: Sequence[str]) -> str | None:
    """Give the certificate of an erasure that tainted one of the outputs; ``None`` if none did."""
    found = con.execute(
        "select min(certificate_id) from raw.tainted where list_contains($keys, key)",
        {"keys": list(keys)},
    ).fetchall()
    return found[0][0]
